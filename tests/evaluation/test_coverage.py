from __future__ import annotations

import pytest
import torch

from genrep.evaluation.coverage import prdc, squared_radii
from genrep.evaluation.curve import curve, f_score, precision_recall_curve


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def modes(n: int, which: tuple[int, ...], seed: int) -> torch.Tensor:
    """A mixture of narrow Gaussians, 20 apart."""
    g = torch.Generator().manual_seed(seed)
    mode = torch.tensor(which)[torch.randint(len(which), (n,), generator=g)]
    return torch.randn(n, 4, dtype=torch.float64, generator=g) + 20 * torch.nn.functional.one_hot(mode, 4)


def test_agrees_with_the_definitions_written_out():
    x, y, k = normal(60, 3, 0), normal(45, 3, 1) * 1.4, 4
    own = lambda t: torch.cdist(t, t).sort(1).values[:, k]  # noqa: E731  column 0 is the point itself
    cross, found = torch.cdist(x, y), prdc(real=x, generated=y, k=k)
    in_real, in_fake = cross <= own(x)[:, None], cross <= own(y)[None]
    assert found.precision.value == pytest.approx(float(in_real.any(0).double().mean()))
    assert found.recall.value == pytest.approx(float(in_fake.any(1).double().mean()))
    assert found.density.value == pytest.approx(float(in_real.double().sum()) / (k * 45))
    assert found.coverage.value == pytest.approx(float(in_real.any(1).double().mean()))
    swapped = prdc(real=y, generated=x, k=k)
    assert (swapped.precision.value, swapped.recall.value) == (found.recall.value, found.precision.value)


def test_radii_do_not_depend_on_blocks():
    x = normal(50, 3, 0)
    for block in (1, 7, 49, 64):
        torch.testing.assert_close(squared_radii(x, 5, block), torch.cdist(x, x).sort(1).values[:, 5] ** 2)


def test_documented_values_on_standard_normals():
    """Equal N(0, I) with k = 5: density 1, coverage 1 - 2^-5 = 0.969 (Naeem et al., section 3.2 and lemma 2)."""
    found = [prdc(real=normal(1000, 64, s), generated=normal(1000, 64, 100 + s), k=5) for s in range(5)]
    means = [sum(f[i].value for f in found) / 5 for i in range(4)]
    assert means[2] == pytest.approx(1.0, abs=0.06)
    truth = (
        1 - torch.tensor([(999 - i) / (1999 - i) for i in range(5)]).prod().item()
    )  # P(a sample among the k nearest)
    assert means[3] == pytest.approx(truth, abs=0.01)


def test_mode_collapse_lowers_recall_and_coverage_not_precision():
    real, half = modes(600, (0, 1, 2, 3), 0), modes(600, (0, 1), 1)
    full, found = prdc(real=real, generated=modes(600, (0, 1, 2, 3), 2)), prdc(real=real, generated=half)
    assert found.precision.value > full.precision.value - 0.05
    assert found.recall.value < 0.6 < 0.8 < full.recall.value
    assert found.coverage.value < 0.6 < 0.8 < full.coverage.value
    c = precision_recall_curve(real=real, generated=half, clusters=8, runs=2)
    assert c.f1_8.value > 0.9
    assert c.f8.value < 0.65
    c = precision_recall_curve(real=half, generated=real, clusters=8, runs=2)  # swapped: invents modes
    assert c.f1_8.value < 0.65
    assert c.f8.value > 0.9


def test_outliers_lower_precision_not_recall():
    real, fake = normal(500, 8, 0), normal(500, 8, 1)
    dirty = fake.clone()
    dirty[:150] += 50 * torch.sign(dirty[:150])
    clean, found = prdc(real=real, generated=fake), prdc(real=real, generated=dirty)
    assert found.precision.value == pytest.approx(0.7 * clean.precision.value, abs=0.05)
    assert found.recall.value > clean.recall.value - 0.1


def test_identical_sets_duplicates_and_scale():
    x = normal(200, 5, 0)
    same = prdc(real=x, generated=x.clone())
    assert (same.precision.value, same.recall.value, same.coverage.value) == (1.0, 1.0, 1.0)
    twice = x.repeat(2, 1)
    assert prdc(real=twice, generated=twice.clone(), k=1).coverage.value == 1.0  # radius zero still holds its centre
    one = prdc(real=x, generated=x[:1].repeat(200, 1))  # one image copied: precise, no recall
    assert one.precision.value == 1.0
    assert one.recall.value <= 1 / 200
    y = normal(150, 5, 1)
    a, b = prdc(real=x, generated=y), prdc(real=100 * x + 7, generated=100 * y.flip(0) + 7)
    assert [e.value for e in a] == pytest.approx([e.value for e in b])


def test_standard_errors_match_the_spread_over_repeats():
    found = [prdc(real=normal(300, 4, s), generated=normal(300, 4, 900 + s) * 1.2) for s in range(60)]
    for i in range(4):
        spread = torch.tensor([f[i].value for f in found]).std()
        stated = torch.tensor([f[i].standard_error for f in found]).mean()
        assert 0.6 < float(stated / spread) < 1.8, found[0][i].protocol


def test_curve_between_known_histograms():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])  # overlap 1/2 on each side
    a, b = curve(p, q)
    assert float(a.max()) == pytest.approx(0.5, abs=1e-5)
    assert float(b.max()) == pytest.approx(0.5, abs=1e-5)
    assert float(f_score(a, b, 1.0)) == pytest.approx(0.5, abs=1e-3)
    a, b = curve(p, p)
    assert float(f_score(a, b, 8.0)) == pytest.approx(1.0, abs=1e-6)
    disjoint = curve(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert float(f_score(*disjoint, 8.0)) == 0.0


def test_bad_options():
    with pytest.raises(ValueError, match="1 <= k < 5"):
        prdc(real=normal(5, 2, 0), generated=normal(9, 2, 1))
    with pytest.raises(ValueError, match="clusters"):
        precision_recall_curve(real=normal(5, 2, 0), generated=normal(9, 2, 1))
