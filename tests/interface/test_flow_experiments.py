"""The kinds `density` and `tails`: a second call keeps what the first has measured; rivals train in the same loop."""

import numpy as np
import pytest
import torch
import yaml

from genrep.contracts import DataSpec
from genrep.evaluation.tails import tail_indices
from genrep.interface.experiments import density, read, tails
from genrep.interface.rivals import rival
from genrep.interface.variants import variants


@pytest.fixture
def table(tmp_path):
    x = np.random.RandomState(0).randn(300, 3) @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
    np.save(tmp_path / "rows.npy", x.astype(np.float32))
    return tmp_path / "rows.npy"


def test_density(table, tmp_path):
    said = {
        "data": [str(table)],
        "models": [{"label": "small", "model": "maf", "layers": 1, "width": 8}, {"rival": "zuko_maf", "width": 8}],
        "pairs": [["small", "zuko_maf"]],
    }
    how = {"steps": 4, "batch": 16, "examples": 20}
    found = density.run(said, how, seed=0, folder=tmp_path / "run", progress=False)
    assert found["rows"][0][:2] == ["rows", "small"]
    assert "±" in found["rows"][0][3]
    log = (tmp_path / "run" / "rows" / "small" / "log.jsonl").read_bytes()
    assert density.run(said, how, seed=0, folder=tmp_path / "run", progress=False) == found
    assert (tmp_path / "run" / "rows" / "small" / "log.jsonl").read_bytes() == log
    (tmp_path / "run" / "rows" / "small" / "nats.json").unlink()  # as if it had been cut before measuring
    assert density.run(said, how, seed=0, folder=tmp_path / "run", progress=False) == found


def test_a_rival_that_is_not_installed_is_a_note(table, tmp_path):
    try:
        rival("zuko_maf", DataSpec((3,)))
    except ModuleNotFoundError:
        said = {"data": str(table), "models": [{"rival": "zuko_maf"}]}
        found = density.run(said, {"steps": 2}, seed=0, folder=tmp_path / "run", progress=False)
        assert found["rows"] == []
        assert "zuko is not installed" in found["notes"][0]
    else:
        found = rival("zuko_maf", DataSpec((3,), mean=(1.0,) * 3, std=(2.0,) * 3)).log_likelihood(torch.randn(4, 3))
        assert found.kind == "exact"
    with pytest.raises(ValueError, match="flow of another library"):
        rival("maf", DataSpec((3,)))
    with pytest.raises(ValueError, match="for vectors"):
        rival("zuko_maf", DataSpec((1, 8, 8)))


def test_tails(tmp_path):
    said = {
        "tails": [2, 0],
        "models": [{"label": "t", "model": "tail_flow", "adapted": True, "couplings": 1, "width": 8}, "planar"],
    }
    how = {"steps": 3, "rows": 1500, "samples": 1000, "batch": 64}
    found = tails.run(said, how, seed=0, folder=tmp_path / "run", progress=False)
    assert [row[0] for row in found["rows"]] == ["data", "t", "planar"]
    assert "1 of 1 heavy" in found["rows"][1][-1]
    assert "0 of 1 heavy" in found["rows"][2][-1]
    assert tails.run(said, how, seed=0, folder=tmp_path / "run", progress=False) == found


def test_copula_has_the_tails_that_are_asked_for():
    x = torch.from_numpy(tails.copula([2, 0, 3], 20_000, 0))
    found = tail_indices(x)
    assert [t.heavy for t in found] == [True, False, True]
    assert found[0].index.value == pytest.approx(2, abs=0.35)
    assert found[2].index.value == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("name", ["flow_density", "flow_tails", "flows_mnist", "flows_fashion_mnist"])
def test_files_are_read(name, pytestconfig):
    folder = pytestconfig.rootpath / "experiments"
    assert read(name, folder)["title"]
    for one in yaml.safe_load((folder / f"{name}.yaml").read_text())["models"]:
        if not (isinstance(one, dict) and "rival" in one):
            plain = {k: v for k, v in one.items() if k != "adapted"} if isinstance(one, dict) else one
            shape = (1, 28, 28) if "mnist" in name else (6,)
            variants([plain])[0].build(DataSpec(shape, levels=256 if "mnist" in name else None))
