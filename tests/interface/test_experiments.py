"""Experiments: every file is well formed and builds what it names, a cut one goes on."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from genrep import data, models
from genrep.contracts import DataSpec
from genrep.evaluation.estimate import estimate, jackknifed
from genrep.evaluation.measure import METRICS
from genrep.interface import experiments, results, runs
from genrep.interface.compare import compare
from genrep.interface.experiments.compare import orders
from genrep.interface.main import main
from genrep.interface.reproduce import clock, reproduce
from genrep.interface.variants import variants
from genrep.training.settings import Settings
from tests.interface.test_main import environment

ROOT = Path(__file__).parent.parent.parent
SPECS = {
    "mnist": DataSpec((1, 28, 28), 256, 10),
    "fashion_mnist": DataSpec((1, 28, 28), 256, 10),
    "mnist_binary": DataSpec((1, 28, 28), 2, 10),
    "digits": DataSpec((1, 8, 8), 17, 10),
}
SMALL = {"network": "dense", "width": 8, "latent": 2, "depth": 1}


def spec_of(name):
    if name in SPECS:
        return SPECS[name]
    try:
        return data.load(name).spec
    except (OSError, ValueError) as error:
        pytest.skip(f"{name} is not here: {error}")


@pytest.mark.parametrize("name", experiments.names(ROOT / "experiments"))
def test_files_are_well_formed_and_build_what_they_name(name):
    said = experiments.read(name, ROOT / "experiments")
    if said["kind"] != "compare":
        return
    spec = spec_of(said["data"])
    rows = variants(said["models"])
    for row in rows:
        assert row.build(spec).data == spec
    assert set(said.get("metrics", [])) <= set(METRICS)
    assert {label for order in said.get("orders", []) for label in order["rising"]} <= {row.label for row in rows}
    for how in (said, *said["budgets"].values()):
        Settings(**how.get("settings", {}))
    for how in said["budgets"].values():
        assert ("steps" in how) != ("seconds" in how)


def test_names_that_specs_are_given_for_are_those_of_the_data():
    assert data.load("digits").spec == SPECS["digits"]


def minimal(**changes):
    said = {
        "title": "Small",
        "data": "digits",
        "models": ["vae"],
        "published": [],
        "budgets": {"small": {"steps": 4, "samples": 90, "examples": 90}},
        **changes,
    }
    return {k: v for k, v in said.items() if v is not None}


def test_the_example_of_the_page_is_well_formed(tmp_path):
    found = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "experiments.md").read_text(encoding="utf8"), re.DOTALL)
    assert found
    (tmp_path / "x.yaml").write_text(found[1])
    assert [row.label for row in variants(experiments.read("x", tmp_path)["models"])] == ["vae", "narrow vae"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"titel": "x"}, "Did you mean 'title'"),
    ({"title": None}, "lacks title"),
    ({"models": None}, "lacks models"),
    ({"kind": "comparison"}, "Did you mean 'compare'"),
    ({"budgets": {"small": {"step": 3}}}, "Did you mean 'steps'"),
    ({"budgets": {"smal": {"steps": 3}}}, "small and perhaps"),
    ({"budgets": {"small": {"steps": 3, "seeds": []}}}, "list of numbers"),
    ({"budgets": {"small": 3}}, "a mapping such as"),
    ({"published": "a sentence"}, "list of sentences"),
])  # fmt: skip
def test_a_file_that_is_not_well_formed_is_refused(changes, message, tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(minimal(**changes)))
    with pytest.raises(ValueError, match=message):
        experiments.read("x", tmp_path)


def test_yaml_that_names_a_python_object_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("title: !!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(ValueError, match="is not YAML"):
        experiments.read("x", tmp_path)


@pytest.mark.parametrize(("rows", "message"), [
    (["vea"], "Did you mean 'vae'"),
    ([{"label": "a", "model": "vae", "latnt": 3}], "Did you mean 'latent'"),
    ([{"label": "a", "model": "vae"}, {"label": "a", "model": "vae", "latent": 3}], "labels that differ"),
    ([{"label": "a b", "model": "vae"}, {"label": "a_b", "model": "vae"}], "labels that differ"),
    ([{"label": "../a", "model": "vae"}], "begins with a letter"),
    ([{"label": "vae"}], "the name of a model"),
    ("vae", "a list of models"),
    ([], "at least one"),
])  # fmt: skip
def test_variants_that_mean_nothing_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        variants(rows)


def test_folders_of_labels_stay_inside():
    for label in ("a/../../b", "a\\b", "a\0b", "a b|c"):
        row = variants([{"label": label, "model": "vae"}])[0]
        assert not set(row.folder) & set("/\\\0 |")


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path / "cache"))
    return {"steps": 4, "samples": 90, "examples": 90, "features": "pca", "progress": False, "say": lambda _: None}


def test_variants_of_one_model_are_rows_of_their_own(tmp_path, quick):
    rows = [{"label": f"vae {k}", "model": "vae", **SMALL, "latent": k} for k in (2, 3)]
    found = compare(rows, "digits", out=tmp_path / "c", metrics=["nats", "cost"], **quick)
    counts = []
    for row, (label, entry) in zip(variants(rows), found["models"].items(), strict=True):
        assert label == row.label
        assert entry["model"] == "vae"
        assert entry["options"] == row.options
        counts.append(entry["metrics"]["parameters"]["value"])
        nats = entry["metrics"]["nats"]
        assert nats["protocol"]["kind"] == "lower bound"
        assert len(nats["replicates"]) == 20
        assert runs.load(tmp_path / "c" / row.folder).recipe.options == row.options
    assert counts[0] < counts[1]
    with pytest.raises(ValueError, match="as vae with"):
        compare([{**rows[0], "width": 9}], "digits", out=tmp_path / "c", metrics=["nats"], **quick)


def test_updates_are_shared_out_among_stages(tmp_path, quick):
    """All rows have made as many; each stage has its checkpoints, and a second call keeps what is measured."""
    rows = [{"model": "vae", **SMALL}, {"model": "two_stage_vae", **SMALL, "prior_width": 8}]
    found = compare(rows, "digits", out=tmp_path / "c", metrics=["bits"], **quick)
    assert [entry["training"]["steps"] for entry in found["models"].values()] == [4, 4]
    for stage in range(2):
        assert list((tmp_path / "c" / "two_stage_vae" / f"stage{stage}" / "checkpoints").glob("*.safetensors"))
    assert found["models"]["two_stage_vae"]["metrics"]["bits"]["protocol"]["kind"] == "lower bound"
    assert compare(rows, "digits", out=tmp_path / "c", metrics=["bits"], **quick)["models"] == found["models"]


def test_nats_are_bits_in_another_unit(tmp_path, quick):
    found = compare([{"model": "vae", **SMALL}], "digits", out=tmp_path / "c", metrics=["bits", "nats"], **quick)
    metrics = found["models"]["vae"]["metrics"]
    in_bits = metrics["nats"]["value"] / (64 * torch.tensor(2.0, dtype=torch.float64).log().item())
    assert metrics["bits"]["value"] == pytest.approx(in_bits, rel=1e-9)
    replicates = estimate(0.0, 0.0, n=(1, 1)), metrics["bits"]["replicates"]
    error = jackknifed(0.0, replicates[1], n=(1, 1)).standard_error
    assert error == pytest.approx(metrics["bits"]["standard_error"], rel=0.6), "20 groups give the same, roughly"


def test_compare_takes_variants_from_a_config(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path / "cache"))
    said = {
        "data": "digits",
        "models": ["vae", {"label": "narrow", "model": "vae", **SMALL}],
        "steps": 3, "samples": 90, "examples": 90, "metrics": ["cost"], "features": "pca",
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(said))
    line = ["compare", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "c")]
    assert main(line) == 0
    assert list(json.loads((tmp_path / "c" / "report.json").read_text())["models"]) == ["vae", "narrow"]
    assert main([*line, "--models", "vae"]) == 0
    assert "vae: measured before, kept." in capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**said, "models": [{"label": "a"}]}))
    assert main(line) == 2
    assert "the name of a model" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A root with an experiment of two small rows."""
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "experiments").mkdir()
    rows = [{"label": label, "model": "vae", **SMALL, "published": p} for label, p in (("a", "86.8 [P]"), ("b", ""))]
    said = minimal(models=rows, metrics=["nats", "fd"], orders=[{"metric": "nats", "rising": ["a", "b"]}],
                   published=["A says 3."], settings={"batch": 16, "precision": "float32"})  # fmt: skip
    said["budgets"]["small"] = {"steps": 40, "samples": 90, "examples": 90, "features": "pca", "seeds": [0, 1]}
    (tmp_path / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(said))
    return tmp_path


def test_reproduce_writes_results_and_the_page(project, capsys):
    paths = reproduce("tiny", root=project, progress=False)
    assert [p.name for p in paths] == ["tiny-small-s0.json", "tiny-small-s1.json"]
    found = json.loads(paths[1].read_text())
    keys = {"name", "title", "kind", "published", "budget", "budget_says", "seed", "hardware", "versions", "seconds"}
    assert keys <= found.keys()
    assert found["seed"] == found["models"]["a"]["settings"]["seed"] == 1
    assert found["models"]["a"]["settings"]["batch"] == 16
    page = (project / "docs" / "results.md").read_text()
    for told in ("## Small (small, seed 0)", "Published: A says 3.", "86.8 [P]", "a below b in nats", "torch"):
        assert told in page
    assert all((project / "docs" / "images" / file).exists() for file in found["pictures"].values())
    # notes that somebody adds stay with the numbers
    paths[1].write_text(json.dumps({**found, "notes": ["By hand."]}))
    reproduce("tiny", root=project, progress=False)
    assert json.loads(paths[1].read_text())["notes"] == ["By hand."]
    assert main(["reproduce", "--root", str(project)]) == 0
    assert "tiny                 Small (small)" in capsys.readouterr().out


@pytest.mark.slow
def test_an_experiment_that_is_killed_goes_on_to_the_same_numbers(project):
    """The rows of a run that was killed twice, and of one that was left alone, are the same."""
    said = yaml.safe_load((project / "experiments" / "tiny.yaml").read_text())
    said["settings"]["checkpoint_seconds"] = 0.1
    said["budgets"]["small"] |= {"steps": 300, "seeds": [0]}
    (project / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(said))
    line = [sys.executable, "-m", "genrep", "reproduce", "tiny", "--root", str(project)]
    alike = environment(OMP_NUM_THREADS=str(torch.get_num_threads()))  # the number of threads is part of the protocol
    for label in ("a", "b"):
        process = subprocess.Popen(line, env=alike, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        checkpoints = project / "runs" / "tiny-small-s0" / label / "checkpoints"
        deadline = time.monotonic() + 60
        while not any(checkpoints.glob("0*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        measured = json.loads((project / "runs" / "tiny-small-s0" / "report.json").read_text())["models"]
        assert list(measured) == ["a", "b"][: "ab".index(label)], "killed while this row was trained"
    assert not (project / "results").exists(), "both calls were cut"
    (cut,) = reproduce("tiny", root=project, progress=False)
    cut = json.loads(cut.read_text())
    (whole,) = reproduce("tiny", root=project, out=project / "undisturbed", progress=False)
    whole = json.loads(whole.read_text())
    for label in ("a", "b"):
        assert cut["models"][label]["training"]["steps"] == 300
        for metric in ("nats", "frechet"):
            assert cut["models"][label]["metrics"][metric] == whole["models"][label]["metrics"][metric]


def test_another_budget_in_the_same_folder_is_refused_even_when_no_row_is_finished(tmp_path, quick):
    (tmp_path / "c").mkdir()
    stopped = RuntimeError("stop")

    def stop(told):
        if told.endswith("training"):
            raise stopped

    with pytest.raises(RuntimeError):
        compare(["vae"], "digits", out=tmp_path / "c", **{**quick, "say": stop})
    with pytest.raises(ValueError, match="budget was 4 updates, is 5 updates"):
        compare(["vae"], "digits", out=tmp_path / "c", **{**quick, "steps": 5})


def test_stages_share_the_updates_of_one_row(tmp_path, quick, monkeypatch):
    build = models.build

    def two(name, spec, **options):
        model = build(name, spec, **options)
        model.objectives.extend(build(name, spec, **options).objectives)
        return model

    monkeypatch.setattr(models, "build", two)
    found = compare([{"model": "vae", **SMALL}], "digits", out=tmp_path / "c", metrics=["cost"], **quick)
    assert found["models"]["vae"]["training"]["steps"] == 4
    logs = [tmp_path / "c" / "vae" / f"stage{i}" / "log.jsonl" for i in range(2)]
    assert [json.loads(log.read_text().splitlines()[-1])["step"] for log in logs] == [2, 2]


def test_an_order_is_claimed_only_where_paired_intervals_part():
    base = [1.0, 5.0, 3.0, 9.0, 2.0]

    def entry(values, kind):
        found = jackknifed(sum(values) / len(values), values, n=(9, 0), metric="nats", protocol={"kind": kind})
        return {"metrics": {"nats": found.asdict()}}

    noisy = [b + 0.1 + 3 * (-1) ** i for i, b in enumerate(base)]
    rows = {
        "low": entry(base, "exact"),
        "high": entry([b + 0.5 + 0.001 * i for i, b in enumerate(base)], "lower bound"),
        "about": entry(noisy, "exact"),
    }
    said = [{"metric": "nats", "rising": list(pair)} for pair in itertools.permutations(["low", "high"])]
    said.append({"metric": "nats", "rising": ["low", "about"]})
    assert [o["outcome"] for o in orders(said, rows)] == ["holds", "is reversed", "is not decided"]


TABLE = {
    "protocol": "Two numbers.",
    "columns": ["row", "measured", "published"],
    "rows": [["a|b", 1.23456, "1.2 (Doe, 2020)"], ["c", None, 3]],
    "notes": ["A note."],
}


def test_other_kinds_return_tables(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    said = {"title": "T", "kind": "compare", "published": ["P."], "data": "digits", "models": ["vae"],
            "budgets": {"small": {"steps": 3}}}  # fmt: skip
    (tmp_path / "experiments" / "t.yaml").write_text(yaml.safe_dump(said))
    seen = {}

    def run(said, how, *, seed, folder, progress):
        seen.update(how=how, seed=seed, progress=progress)
        (folder / "p.png").write_bytes(b"picture")
        return {**TABLE, "pictures": {"a picture": "p.png"}}

    monkeypatch.setattr(experiments.kind("compare"), "run", run)
    (path,) = reproduce("t", root=tmp_path, progress=False)
    assert seen == {"how": {"steps": 3}, "seed": 0, "progress": False}
    found = json.loads(path.read_text())
    assert found["pictures"] == {"a picture": "t-small-s0-a_picture.png"}
    assert (tmp_path / "docs" / "images" / "t-small-s0-a_picture.png").read_bytes() == b"picture"
    page = results.render(tmp_path)
    for line in (
        "| a\\|b | 1.235 | 1.2 (Doe, 2020) |",
        "| c | – | 3 |",
        "Two numbers.",
        "Published: P.",
        "Note: A note.",
    ):
        assert line in page
    monkeypatch.setattr(
        experiments.kind("compare"), "run", lambda *_, **__: {**TABLE, "pictures": {"p": "../../etc/passwd"}}
    )
    with pytest.raises(ValueError, match="pictures inside"):
        reproduce("t", root=tmp_path, progress=False)


def test_the_page_shows_which_comparisons_miss_their_targets(tmp_path):
    row = {"name": "a", "ours": 2.0, "rival": 3.0, "ratio": 1.5, "target": 3.0, "unit": "s", "hardware": "two cores"}
    rows = [row, {**row, "name": "b", "target": 1.5}, {**row, "name": "c", "ratio": 0.5, "target": None}]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    assert results.render(tmp_path).splitlines()[-3:] == [
        "| a | 2 | 3 | s | **1.5** | 3 |",
        "| b | 2 | 3 | s | 1.5 | 1.5 |",
        "| c | 2 | 3 | s | 0.5 |  |",
    ]


def test_the_clock_adds_up_what_all_calls_took(tmp_path):
    for _ in range(2):
        with clock(tmp_path / "x") as seconds:
            time.sleep(0.05)
    assert 0.1 <= seconds() < 2
    assert json.loads((tmp_path / "x" / "seconds.json").read_text()) == pytest.approx(seconds(), abs=0.5)
