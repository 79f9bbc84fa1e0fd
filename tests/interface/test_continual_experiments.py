"""The kind `continual`: rows of strategies on one stream, measured alike, kept where they were finished."""

import copy
import itertools
from pathlib import Path

import pytest
import yaml

from genrep.interface.continual import Source, read
from genrep.interface.experiments import continual

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SAID = {
    "data": "digits",
    "stream": {"stream": "class", "tasks": 2},
    "model": {"model": "vae", "latent": 3, "width": 8},
    "strategies": [
        "finetune",
        "separate",
        {"label": "half", "strategy": "replay", "share": 0.5, "published": "9 (Doe)"},
    ],
    "metrics": ["frechet"],
    "features": "pca",
    "ratio": [["half", "finetune"]],
}
HOW = {"steps": 4, "samples": 40, "examples": 40, "settings": {"batch": 16}}


def test_rows_of_strategies(tmp_path):
    found = continual.run(SAID, HOW, seed=0, folder=tmp_path, progress=False)
    assert found["columns"] == [
        "strategy", "frechet", "forgetting (frechet)", "backward transfer (frechet)",
        "gain over separate models (frechet)", "kept, MiB", "published",
    ]  # fmt: skip
    finetune, separate, half = found["rows"]
    assert [finetune[0], separate[0], half[0]] == ["finetune", "separate", "half"]
    assert float(separate[2]) == float(separate[3]) == 0  # models that nobody touches forget nothing
    assert separate[4] == ""
    assert finetune[4] != ""
    assert float(separate[5]) == pytest.approx(2 * float(finetune[5]), rel=0.05)
    assert half[6] == "9 (Doe)"
    assert found["notes"][0].startswith("half / finetune = ")
    for picture in found["pictures"].values():
        assert (tmp_path / picture).is_file()
    log = (tmp_path / "half" / "results.json").stat().st_mtime_ns
    assert continual.run(SAID, HOW, seed=0, folder=tmp_path, progress=False) == found
    assert (tmp_path / "half" / "results.json").stat().st_mtime_ns == log


def test_options_of_a_budget_are_those_of_rows_that_say_nothing_else(tmp_path):
    rows = ["finetune", "binplay", {"label": "wide", "strategy": "binplay", "width": 12, "bits": 40}]
    said = SAID | {"model": "classifier", "strategies": rows, "metrics": ["accuracy"], "ratio": []}
    how = HOW | {
        "options": {"classifier": {"network": "dense", "width": 6}, "binplay": {"network": "dense", "width": 8}}
    }
    found = continual.run(said, how, seed=0, folder=tmp_path, progress=False)
    kept = {
        label: yaml.safe_load((tmp_path / label / "config.yaml").read_text())["chosen"]
        for label in ("finetune", "binplay", "wide")
    }
    assert {one["options"]["width"] for one in kept.values()} == {6}
    assert kept["finetune"]["strategy_options"] == {}
    assert kept["binplay"]["strategy_options"] == {"network": "dense", "width": 8}
    assert kept["wide"]["strategy_options"] == {"network": "dense", "width": 12, "bits": 40}
    for label in ("binplay", "wide"):
        assert (tmp_path / found["pictures"][f"recalled, {label}"]).is_file()
    with pytest.raises(ValueError, match="Unknown model or strategy"):
        continual.run(said, HOW | {"options": {"binplai": {}}}, seed=0, folder=tmp_path / "x", progress=False)


def test_a_row_may_take_more_updates(tmp_path):
    rows = ["finetune", {"label": "longer", "strategy": "finetune", "length": 2}, "separate"]
    found = continual.run(SAID | {"strategies": rows, "ratio": []}, HOW, seed=0, folder=tmp_path, progress=False)
    steps = [
        yaml.safe_load((tmp_path / n / "config.yaml").read_text())["settings"]["steps"] for n in ("finetune", "longer")
    ]
    assert steps == [4, 8]
    assert "4, 8 updates a task;" in found["protocol"]
    assert not any(c.startswith("gain") for c in found["columns"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": [{"strategy": "finetune", "length": 0}]}, "length above 0"),
        ({"strategies": ["finetune", {"strategy": "replay", "label": "finetune"}]}, "labels that differ"),
        ({"strategies": ["replai"]}, "Did you mean .replay."),
        ({"strategies": [{"strategy": "replay", "size": 4}]}, "option of replay"),
        ({"model": "vaee"}, "Did you mean .vae."),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        continual.run({**copy.deepcopy(SAID), **change}, HOW, seed=0, folder=tmp_path, progress=False)
    assert not any(tmp_path.iterdir())


def test_the_calorimeter_comes_in_bands_of_rising_energy():
    said = yaml.safe_load((EXPERIMENTS / "continual_calorimeter.yaml").read_text())
    stream, whole = read(continual.source_of(said))
    energies = [task.train.y[:, said["stream"]["column"]] for task in stream.tasks]
    assert all(low.max() <= high.min() for low, high in itertools.pairwise(energies))
    assert sum(len(e) for e in energies) == len(whole.train)
    assert len(continual.rows_of(said)) == len(said["strategies"])


def test_classes_of_several_sets_are_cut_together():
    once, twice = (read(Source(data=("digits",) * n, stream="class", tasks=5))[0] for n in (1, 2))
    assert twice.spec.classes == 10  # what bears one name is one class
    for one, two in zip(once.tasks, twice.tasks, strict=True):
        assert sorted(set(two.train.y.tolist())) == sorted(set(one.train.y.tolist()))
        assert len(two.train) == 2 * len(one.train)
