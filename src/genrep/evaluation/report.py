"""The report of a comparison: a JSON file, and one HTML page that holds everything it shows.

`report.json` is {"schema": 1, "protocol": {...}, "null": {...}, "models": {label: entry}}; an entry has "model",
"options", "published" (what a paper reports), "settings", "sampling" (options of the sampler), "training" (updates,
images per second, peak memory in bytes, the log), "seconds" (of training and measuring), "metrics" (an estimate, or
{"reason": why there is none}), "pictures" (PNG files beside it, by title), "captions" of some of them and "spectrum".
"pairs" are the differences between models. docs/report.schema.json describes it whole.
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
from genrep.evaluation.likelihood import BY_MODEL

SCHEMA = 1
SAME_FOR_ALL = "test images that lie nearest to a training image, each before it"  # a picture without the model
_SHORT = {  # of titles of pictures, for the links on top
    "samples": "Samples",
    "samples and test data": "Samples",
    "test examples, each before its reconstruction": "Reconstructions",
    "samples that lie nearest to a training image, each before it": "Nearest training images",
    SAME_FOR_ALL: "The same of test images",
    "representation of test examples": "Representations",
}
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


def text(report: Mapping[str, Any]) -> str:
    """The table for a terminal: a column for each model."""
    titles, rows = table(report)
    columns = [titles, *rows]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class Pair(NamedTuple):
    """A difference between two models, first minus second, and its p-value after Holm's correction."""

    metric: str
    first: str
    second: str
    difference: Estimate
    p_value: float
    note: str = ""  # what to bear in mind

    def asdict(self) -> dict[str, Any]:
        """As `report.json` holds it."""
        low, high, _ = self.difference.interval
        value = {"value": self.difference.value, "low": low, "high": high, "p_value": self.p_value}
        return {"metric": self.metric, "first": self.first, "second": self.second, **value, "note": self.note}


COMPARED = ("bits", "nats", "frechet", "coverage", "precision")


def pairs(report: Mapping[str, Any], metrics: tuple[str, ...] = COMPARED) -> list[Pair]:
    """All differences between models, paired where both share their jackknife groups; Holm (1979) over all of them.

    Likelihoods are compared however they were found, which the note says; nats only where there are no bits.
    """
    found: list[tuple[str, str, str, Estimate]] = []
    notes: list[str] = []
    for metric in metrics:
        have = {
            name: revived(m) for name, e in report["models"].items()
            if (m := _metric(e, metric)) and not (metric == "nats" and _metric(e, "bits"))
        }  # fmt: skip
        for a, b in itertools.combinations(have, 2):
            notes.append(_note(have[a], have[b]))
            found.append((metric, a, b, difference(_of_its_kind(have[a]), _of_its_kind(have[b]))))
    adjusted = holm([_p_value(d) for *_, d in found])
    return [Pair(*rest, p, note) for rest, p, note in zip(found, adjusted, notes, strict=True)]


def _of_its_kind(found: Estimate) -> Estimate:
    """Without what may differ between exact values and bounds of one likelihood."""
    if "kind" not in found.protocol:
        return found
    return found._replace(protocol={k: v for k, v in found.protocol.items() if k not in BY_MODEL})


def _note(a: Estimate, b: Estimate) -> str:
    kinds = [e.protocol.get("kind", "exact") for e in (a, b)]
    return "" if kinds == ["exact", "exact"] else f"{kinds[0]} against {kinds[1]}"


def _p_value(d: Estimate) -> float:
    degrees = len(d.replicates) - 1 if d.replicates else math.inf
    if not d.standard_error > 0:
        return 1.0 if d.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(d.value) / d.standard_error, degrees))


def write(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json` and `report.html`; returns the page."""
    storage.write_json(folder / "report.json", {**report, "pairs": [p.asdict() for p in pairs(report)]})
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
    report.pop("pairs", None)  # they follow from the rest
    return report


def html(report: Mapping[str, Any], folder: Path) -> str:
    """The page: tables, figures, pictures, differences and protocol, with nothing loaded from elsewhere."""
    source = resources.files("genrep.evaluation").joinpath("report.html.jinja").read_text(encoding="utf8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    titles, rows = table(report)

    def embedded(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()

    return environment.from_string(source).render(
        report=report,
        titles=titles,
        rows=rows,
        columns=columns(report),
        pairs=pairs(report),
        number=_number,
        picture=embedded,
        figures={
            "bits": figures.likelihoods(report),
            "trilemma": figures.trilemma(report),
            "spectra": figures.spectra(report),
            "curves": figures.curves(report),
        },
        galleries=_galleries(report),
        short=lambda title: _SHORT.get(title, title),
        memorised=_memorised(report),
        measured=[_row(report, metric) for metric in report["metrics"]],
        reasons=_reasons(report),
        warned=_warned(report),
    )


def _galleries(report: Mapping[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    """(model, file, caption) of every picture, by title: models stand side by side."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, entry in report["models"].items():
        for title, file in entry["pictures"].items():
            if title == SAME_FOR_ALL and title in found:
                continue
            shown = "held-out data" if title == SAME_FOR_ALL else name
            found.setdefault(title, []).append((shown, file, entry.get("captions", {}).get(title, "")))
    return found


def _memorised(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Model, C_T, its p-value, authenticity, that of held-out data, its p-value."""
    rows = []
    for name, entry in report["models"].items():
        c, a = _metric(entry, "copying"), _metric(entry, "authenticity")
        p, q = _metric(entry, "copying_p"), _metric(entry, "authenticity_p")
        if c and a and p and q:
            shares = f"{a['value']:.3f} ± {a['standard_error']:.3f}", f"{a['protocol']['held_out']:.3f}"
            rows.append((name, f"{c['value']:.2f}", f"{p['value']:.2g}", *shares, f"{q['value']:.2g}"))
    return rows


def _row(report: Mapping[str, Any], metric: str) -> tuple[str, list[tuple[str, str]]]:
    """A metric, and for each model the text of its cell with what a pointer shows: the interval, or why a dash."""
    cells = []
    for entry in report["models"].values():
        found = entry["metrics"].get(metric, {})
        if found.get("value") is None:
            cells.append(("–", found.get("reason", "not measured")))
            continue
        error, interval = found["standard_error"], found["interval"]
        text = _number(found["value"]) + (f" ± {_number(error)}" if error else "")
        known = error and interval["low"] is not None
        hint = (
            f"{interval['level']:.0%} interval {_number(interval['low'])} to {_number(interval['high'])}"
            if known
            else ""
        )
        cells.append((text, hint))
    return metric, cells


def _reasons(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(reason, metrics, models): one line for what several models and metrics share."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, entry in report["models"].items():
        for metric, m in entry["metrics"].items():
            if "reason" in m:
                short = m["reason"].split(" It can:")[0]  # report.json keeps what it can, and which models could
                metrics, models = found.setdefault(short, ([], []))
                metrics += [metric] if metric not in metrics else []
                models += [name] if name not in models else []
    return [(reason, ", ".join(metrics), ", ".join(models)) for reason, (metrics, models) in found.items()]


def _warned(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = {
        (name, m["protocol"]["warning"]) for name, e in report["models"].items() for m in e["metrics"].values()
        if "warning" in m.get("protocol", {})
    }  # fmt: skip
    return sorted(found)
