"""Tail indices of laws whose index is known."""

import pytest
import torch

from genrep.evaluation.tails import as_option, tail_index, tail_indices
from genrep.interface.main import main


def student(df, n, generator):
    z = torch.randn(n, generator=generator, dtype=torch.float64)
    chi = torch.randn(n, int(df), generator=generator, dtype=torch.float64).square().mean(1)
    return z / chi.sqrt()


@pytest.mark.parametrize("df", [1, 2, 3])
def test_interval_covers_the_index_of_student(df):
    g = torch.Generator().manual_seed(df)
    covered = 0
    for _ in range(60):
        found = tail_index(5 + 3 * student(df, 20_000 if df == 3 else 4000, g))
        assert found.heavy
        low, high, _ = found.index.interval
        covered += low < df < high
    assert covered >= 51, covered  # the bias of Hill's estimator at a finite threshold costs some of 95 %


def test_light_tails_are_light():
    g, heavy = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        normal = torch.randn(4000, generator=g)
        heavy += sum(t.heavy for t in tail_indices(torch.stack([normal, torch.rand(4000, generator=g)], 1)))
    assert heavy <= 6  # of 80, at a level of 2.5 %


def test_scale_and_place_do_not_matter():
    x = student(2, 2000, torch.Generator().manual_seed(0))
    a, b = tail_index(x), tail_index(1e6 * x - 1e7)
    assert a.index.value == pytest.approx(b.index.value, rel=1e-6)


def test_option_of_the_model():
    g = torch.Generator().manual_seed(0)
    option = as_option(tail_indices(torch.stack([student(2, 3000, g), torch.randn(3000, generator=g)], 1)))
    assert option[1] == 0
    assert 1.5 < option[0] < 2.6


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(100), "at least 200"),
        (torch.zeros(300), "all the same"),
        (torch.full((300,), torch.nan), "finite rows"),
        (torch.randn(300, 2), "one column"),
    ],
)
def test_what_has_no_tail_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        tail_index(x)


def test_command(tmp_path, capsys):
    g = torch.Generator().manual_seed(0)
    rows = torch.stack([student(2, 1500, g), torch.randn(1500, generator=g)], 1).tolist()
    file = tmp_path / "table.csv"
    file.write_text("wild,calm\n" + "\n".join(f"{a},{b}" for a, b in rows))
    assert main(["tails", str(file)]) == 0
    said = capsys.readouterr().out
    assert "wild" in said
    assert "heavy" in said
    assert "--tails" in said
    assert main(["tails", "digits"]) == 2
    assert "table of real values" in capsys.readouterr().err
    assert main(["tails"]) == 2


def test_a_column_without_a_tail_leaves_the_others(tmp_path, capsys):
    g = torch.Generator().manual_seed(0)
    rows = torch.stack([student(2, 900, g), torch.randint(0, 2, (900,), generator=g).double()], 1)
    path = tmp_path / "t.csv"
    path.write_text("wild,coin\n" + "\n".join(f"{a:.6f},{b:.1f}" for a, b in rows.tolist()))
    assert main(["tails", str(path)]) == 0
    told = capsys.readouterr().out
    assert "heavy" in told
    assert "none: " in told
    assert told.rstrip().endswith(",0")
