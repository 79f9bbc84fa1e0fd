"""The report of a comparison: a JSON file, and one HTML page that holds everything it shows.

`report.json` is {"schema": 1, "protocol": {...}, "null": {...}, "models": {label: entry}}; an entry has "model",
"options", "published" (what a paper reports), "settings", "sampling" (options of the sampler), "training" (updates,
images per second, peak memory in bytes, the log), "seconds" (of training and measuring), "metrics" (an estimate, or
{"reason": why there is none}) and "pictures" (PNG files beside it).
"""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from scipy import stats

from genrep import storage
from genrep.evaluation import figures
from genrep.evaluation.estimate import Estimate, difference, holm

SCHEMA = 1
Entry = dict[str, Any]


class Column(NamedTuple):
    """One column of the table: its title, what it means, and the text of a cell."""

    title: str
    meaning: str
    cell: Callable[[Entry], str]


def revived(found: Mapping[str, Any]) -> Estimate:
    """The estimate that `Estimate.asdict` wrote; what was None is nan."""

    def number(x: float | None) -> float:
        return math.nan if x is None else x

    interval = found["interval"]
    return Estimate(
        number(found["value"]),
        number(found["standard_error"]),
        (number(interval["low"]), number(interval["high"]), interval["level"]),
        (found["n"]["real"], found["n"]["generated"]),
        dict(found["protocol"]),
        tuple(found["replicates"]),
    )


def as_json(found: Mapping[str, Estimate | str]) -> dict[str, Any]:
    """Metrics as `report.json` and `metrics.json` hold them."""
    return {k: {"reason": v} if isinstance(v, str) else v.asdict() for k, v in found.items()}


def _metric(entry: Entry, name: str) -> Mapping[str, Any] | None:
    found = entry["metrics"].get(name)
    return found if found and found.get("value") is not None else None


def _number(value: float) -> str:
    """Three significant digits, thousands with separators.

    >>> _number(0.12345), _number(12345.6), _number(31.4)
    ('0.123', '12,346', '31.4')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _with_error(name: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = _metric(entry, name)
        return "–" if found is None else f"{found['value']:.3f} ± {found['standard_error']:.3f}"

    return cell


def _with_interval(name: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = _metric(entry, name)
        if found is None:
            return "–"
        low, high = (_number(found["interval"][k]) for k in ("low", "high"))
        return f"{_number(found['value'])} [{low}, {high}]"

    return cell


def _plain(name: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = _metric(entry, name)
        return "–" if found is None else _number(found["value"])

    return cell


def _likelihood(name: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = _metric(entry, name)
        if found is None or (name == "nats" and _metric(entry, "bits")):  # the same, in another unit
            return "–"
        return f"{found['value']:.3f} ± {found['standard_error']:.3f} ({found['protocol']['kind']})"

    return cell


def _published(entry: Entry) -> str:
    return entry.get("published") or "–"


def _training(key: str, scale: float = 1.0) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        value = entry["training"].get(key)
        return "–" if value is None else _number(value * scale)

    return cell


COLUMNS = [
    Column("bits/dim", "-log2 of the probability of data per value, its kind; lower is better", _likelihood("bits")),
    Column("nats", "-log of the probability (density) of an example; its kind; lower is better", _likelihood("nats")),
    Column("published", "what a paper reports, with its protocol", _published),
    Column("Fréchet distance", "of samples from test data; lower is better", _with_interval("frechet")),
    Column("precision", "share of samples near test data", _with_error("precision")),
    Column("coverage", "share of test data with a sample near", _with_error("coverage")),
    Column("probe", "accuracy of a linear classifier on the representation", _with_error("probe")),
    Column("parameters", "of generative and inference part", _plain("parameters")),
    Column("steps", "updates in training", _training("steps")),
    Column("train/s", "training examples per second", _training("images_per_second")),
    Column("samples/s", "samples per second", _plain("sampling_speed")),
    Column("evaluations", "sequential network evaluations per sample", _plain("evaluations")),
    Column("peak MiB", "largest resident memory while training", _training("peak_host", 2**-20)),
]  # fmt: skip


def table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the comparison, as text."""
    shown = columns(report)
    rows = [[name, *[column.cell(entry) for column in shown]] for name, entry in report["models"].items()]
    return ["model", *[column.title for column in shown]], rows


def columns(report: Mapping[str, Any]) -> list[Column]:
    """Those in which some model has a value."""
    return [c for c in COLUMNS if any(c.cell(entry) != "–" for entry in report["models"].values())]


def markdown(report: Mapping[str, Any]) -> str:
    """The table for a README."""
    titles, rows = table(report)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


class Pair(NamedTuple):
    """A difference between two models, first minus second, and its p-value after Holm's correction."""

    metric: str
    first: str
    second: str
    difference: Estimate
    p_value: float


def pairs(report: Mapping[str, Any], metrics: tuple[str, ...] = ("frechet", "coverage", "precision")) -> list[Pair]:
    """All differences between models, paired where both share their jackknife groups; Holm (1979) over all of them."""
    found: list[tuple[str, str, str, Estimate]] = []
    for metric in metrics:
        have = {name: revived(m) for name, e in report["models"].items() if (m := _metric(e, metric))}
        found += [(metric, a, b, difference(have[a], have[b])) for a, b in itertools.combinations(have, 2)]
    raw = [_p_value(d) for *_, d in found]
    adjusted = holm(raw)
    return [Pair(*rest, p) for rest, p in zip(found, adjusted, strict=True)]


def _p_value(d: Estimate) -> float:
    degrees = len(d.replicates) - 1 if d.replicates else math.inf
    if not d.standard_error > 0:
        return 1.0 if d.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(d.value) / d.standard_error, degrees))


def write(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json` and `report.html`; returns the page."""
    storage.write_json(folder / "report.json", report)
    page = folder / "report.html"
    storage.write_text(page, html(report, folder))
    return page


def read(folder: Path) -> dict[str, Any] | None:
    """An earlier report of this folder; None if there is none, a ValueError if it is damaged or of another schema."""
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to start anew.") from error
    if report.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {report.get('schema')}, expected {SCHEMA}; choose another folder.")
    return report


def html(report: Mapping[str, Any], folder: Path) -> str:
    """The page: table, figures, pictures, differences and protocol, with nothing loaded from elsewhere."""
    source = resources.files("genrep.evaluation").joinpath("report.html.jinja").read_text(encoding="utf8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    titles, rows = table(report)

    def embedded(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()

    reasons = [
        (name, metric, m["reason"])
        for name, e in report["models"].items()
        for metric, m in e["metrics"].items()
        if "reason" in m
    ]
    warned = [
        (name, m["protocol"]["warning"]) for name, e in report["models"].items() for m in e["metrics"].values()
        if "warning" in m.get("protocol", {})
    ]  # fmt: skip
    return environment.from_string(source).render(
        report=report,
        titles=titles,
        rows=rows,
        columns=columns(report),
        pairs=pairs(report),
        number=_number,
        picture=embedded,
        trilemma=figures.trilemma(report),
        curves=figures.curves(report),
        reasons=reasons,
        warned=sorted(set(warned)),
    )
