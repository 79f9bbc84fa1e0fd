"""Measuring and reporting: reasons instead of numbers, pairs, corrections, JSON that says the same."""

import json
import math
import mmap
from pathlib import Path

import pytest
import torch

from genrep import data, models
from genrep.contracts import Batch
from genrep.evaluation import cost, report
from genrep.evaluation.estimate import estimate, jackknifed
from genrep.evaluation.extractors import extractor
from genrep.evaluation.measure import Subject, measure, null
from genrep.interface import compare as comparison


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def subject(digits):
    torch.manual_seed(0)
    model = models.build("vae", digits.spec, latent=2, width=8)
    return Subject(model, digits, extractor("pca", digits), samples=150, examples=150)


def test_every_metric_answers_or_says_why(subject):
    found = measure(subject)
    assert found["bits"].protocol["kind"] == "lower bound"
    assert found["bits"].protocol["measure"] == "mass"
    assert found["frechet"].protocol["features"] == "pca"
    assert found["frechet"].protocol["data_hash"] == subject.protocol["data_hash"]
    assert found["frechet_plug_in"].value > found["frechet"].value, "the plug-in is biased upwards"
    assert 0 <= found["probe"].value <= 1
    assert found["evaluations"].value == 1
    assert found["parameters"].value == sum(p.numel() for p in subject.model.parameters())
    no_labels = subject.splits._replace(test=_Unlabelled(subject.splits.test), train=_Unlabelled(subject.splits.train))
    other = Subject(subject.model, no_labels, subject.extractor, samples=50, examples=100)
    assert "needs labels" in measure(other, ["probe"])["probe"]
    with pytest.raises(ValueError, match="Did you mean 'bits'"):
        measure(subject, ["bit"])


class _Unlabelled:
    def __init__(self, data):
        self.data, self.spec = data, data.spec

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Batch(self.data[index].x)


def test_bits_of_a_known_model_are_exact(digits):
    """A decoder of zeros gives every pixel one logistic, and an encoder of zeros a rate of zero: bits by hand."""
    model = models.build("vae", digits.spec, latent=2, width=8, network="dense", depth=1)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    found = measure(Subject(model, digits, extractor("pca", digits), samples=10, examples=360), ["bits"])["bits"]
    scale, edges = math.exp(-2), (torch.arange(16, dtype=torch.float64) + 0.5) / 8 - 1
    below = torch.cat([torch.zeros(1), (edges / scale).sigmoid(), torch.ones(1)])
    counts = digits.test.x.flatten().bincount(minlength=17)
    expected = -(counts * below.diff().log2()).sum() / counts.sum()
    assert found.value == pytest.approx(expected.item(), rel=1e-5)


def test_model_of_other_data_is_refused(subject, digits):
    with pytest.raises(ValueError, match="measure it on its own data"):
        Subject(subject.model, digits._replace(train=_Other(digits.train)), subject.extractor)


class _Other(_Unlabelled):
    def __init__(self, data):
        super().__init__(data)
        self.spec = data.spec._replace(levels=18)


def test_null_check_of_digits(digits):
    found = null(digits, extractor("pca", digits))
    assert found.passed
    assert found.estimate.n == (180, 180)


def test_json_keeps_estimates_whole():
    one = jackknifed(1.0, [0.9, 1.2, 1.1], n=(3, 4), metric="x")
    assert report.revived(json.loads(json.dumps(one.asdict()))) == one
    unknown = estimate(1.0, float("nan"), n=(1, 1))
    assert report.revived(unknown.asdict()).standard_error != 0


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}


def conforms(value, schema, root, at="report"):
    """What differs from a JSON Schema, of the words that docs/report.schema.json uses."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].split("/")[-1]], root, at)
    if "anyOf" in schema:
        found = [conforms(value, one, root, at) for one in schema["anyOf"]]
        return [] if [] in found else [min(found, key=len)[0]]
    if "const" in schema:
        return [] if value == schema["const"] else [f"{at} is {value}"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(value is None if k == "null" else isinstance(value, TYPES[k]) for k in kinds):
        return [f"{at} is {type(value)}"]
    wrong = []
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        wrong += [f"{at} has no {k}" for k in schema.get("required", []) if k not in value]
        for k, v in value.items():
            if k in known or isinstance(rest, dict):
                wrong += conforms(v, known.get(k, rest), root, f"{at}.{k}")
            elif rest is False:
                wrong.append(f"{at} has {k}")
    if isinstance(value, list) and "items" in schema:
        wrong += [w for i, v in enumerate(value) for w in conforms(v, schema["items"], root, f"{at}[{i}]")]
    return wrong


def entry(values, metric="frechet"):
    e = jackknifed(sum(values) / len(values), values, n=(9, 9), metric=metric)
    return {"metrics": {metric: e.asdict()}, "training": {}, "pictures": {}}


def test_pairs_use_what_the_models_share():
    """A difference that is the same in every group is certain, however much the groups differ among themselves."""
    base = [1.0, 5.0, 3.0, 9.0]
    shifted = [v + 0.5 + 1e-3 * (-1) ** i for i, v in enumerate(base)]
    (pair,) = report.pairs({"models": {"a": entry(shifted), "b": entry(base)}})
    assert (pair.first, pair.second) == ("a", "b")
    assert pair.difference.value == pytest.approx(0.5)
    assert pair.p_value < 1e-3
    other = entry(base)
    other["metrics"]["frechet"]["protocol"]["features_hash"] = "other"
    with pytest.raises(ValueError, match="features_hash"):
        report.pairs({"models": {"a": entry(shifted), "b": other}})


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_peak_memory_counts_what_was_used_since_the_reset():
    """Whatever pages the system takes back meanwhile: they only make less of what is resident.

    The block is mapped and unmapped by hand, because an allocator may keep what was freed.
    """
    cost.reset_peak_memory()
    size, counters = 64 * 2**20, 2 * 2**20  # bytes by which Linux's counters of pages lag behind
    with mmap.mmap(-1, size) as block:
        block.write(b"1" * size)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = cost.peak_memory()["host"]
        assert peak + counters >= int(status["VmRSS"].split()[0]) * 1024 >= size
    assert cost.peak_memory()["host"] + counters >= peak
    cost.reset_peak_memory()
    assert cost.peak_memory()["host"] < peak - 48 * 2**20


def test_comparison_extends_and_refuses_another_protocol(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path / "cache"))
    how = {"out": tmp_path / "c", "samples": 90, "examples": 90, "features": "pca", "progress": False, "device": "cpu"}
    quick = {"steps": 4, "metrics": ["bits", "fd", "cost"]}
    said = []
    first = comparison.compare(["vae"], "digits", **quick, **how, say=said.append)
    assert list(first["models"]) == ["vae"]
    assert first["models"]["vae"]["training"]["steps"] == 4
    both = comparison.compare(["vae", "dcgan"], "digits", **quick, **how, say=said.append)
    assert list(both["models"]) == ["vae", "dcgan"]
    assert "vae: measured before, kept." in said
    assert "cannot log_likelihood" in both["models"]["dcgan"]["metrics"]["bits"]["reason"]
    page = (tmp_path / "c" / "report.html").read_text()
    assert "cannot log_likelihood" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", ""), "the page loads something"
    assert report.read(tmp_path / "c") == both
    stored = json.loads((tmp_path / "c" / "report.json").read_text())
    assert not conforms(stored, SCHEMA, SCHEMA)
    stored["models"]["vae"]["metrics"]["bits"]["value"] = "two"
    del stored["null"]["passed"]
    assert len(conforms(stored, SCHEMA, SCHEMA)) == 2, "the check of the schema sees what is wrong"
    with pytest.raises(ValueError, match="budget was 4 updates, is 5 updates"):
        comparison.compare(["dcgan"], "digits", **{**quick, "steps": 5}, **how, say=said.append)
    with pytest.raises(ValueError, match="Did you mean 'vae'"):
        comparison.compare(["vea"], "digits", **quick, **how)
    with pytest.raises(ValueError, match="either seconds or steps"):
        comparison.compare(["vae"], "digits", out=tmp_path / "d")
    (tmp_path / "c" / "report.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        comparison.compare(["vae"], "digits", **quick, **how)


def test_table_and_markdown_show_dashes_for_what_is_missing():
    titles, rows = report.table({"models": {"a": entry([1.0, 2.0]), "b": entry([0.4, 0.6], "coverage")}})
    assert rows[0][0] == "a"
    assert rows[0][titles.index("coverage")] == rows[1][titles.index("Fréchet distance")] == "–"
    assert "bits/dim" not in titles, "a column without a value"
    assert rows[0][titles.index("Fréchet distance")].startswith("1.5 [")
    assert report.markdown({"models": {"a": entry([1.0, 2.0])}}).count("\n") == 2


def test_bits_of_a_bound_and_an_exact_model_are_paired_and_noted():
    """Group means that move together leave a sure difference; how each was found may differ, and is said."""
    one, two = entry([2.0, 3.0, 2.5, 2.2], "bits"), entry([2.1, 3.1, 2.61, 2.3], "bits")
    for e, kind in ((one, "exact"), (two, "lower bound")):
        e["metrics"]["bits"]["protocol"] |= {"kind": kind, "draws": 1 if kind == "exact" else 64}
    (pair,) = report.pairs({"models": {"a": one, "b": two}})
    assert pair.note == "exact against lower bound"
    assert pair.p_value < 0.01
    two["metrics"]["bits"]["protocol"]["levels"] = 256
    with pytest.raises(ValueError, match="levels"):
        report.pairs({"models": {"a": one, "b": two}})
