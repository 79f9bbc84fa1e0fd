"""Strategies against forgetting on one stream: final scores, what was forgotten, and what each keeps in memory.

`data` (a set, or several for a sequence), `stream` ({stream: class, tasks: 5} and the other options of `genrep
continual`), `model` (a name, or {model: vae, latent: 8}), `strategies`: names, or {label, strategy, published, model,
told, fraction, length, and options of the strategy}. `metrics`, `features` and `settings` as in `genrep continual`;
`ratio`: [[a, b], ...], pairs of labels of which the ratio of final Fréchet distances is told; `show: false`: no
samples are pictured. A budget says `steps` (of a task; a row with a `length` takes that many times as many),
`samples`, `examples` and, by the name of a model or strategy, `options` that rows have where they say nothing else.
Where a row trains `separate` models as long as all others, the gain over them is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from genrep import models
from genrep.continual import pictures, strategies
from genrep.continual.scores import LOWER_IS_BETTER, gain_over_alone
from genrep.interface import continual as runs
from genrep.interface.pieces import pm
from genrep.interface.variants import Variant, variants
from genrep.naming import choose, file_name
from genrep.training.settings import Settings

NEEDED = ("data", "stream", "model", "strategies")
KEYS = ("stream", "model", "strategies", "metrics", "features", "settings", "ratio", "show")
BUDGET = ("steps", "samples", "examples", "settings", "options")
_OWN = ("label", "strategy", "model", "told", "fraction", "length", "published")


class Row(NamedTuple):
    """A strategy with its options, around a model with its."""

    label: str
    strategy: str
    options: dict[str, Any]
    model: Variant
    told: runs.Told = "auto"
    fraction: float = 1.0
    length: float = 1.0
    published: str = ""


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows, source = rows_of(said), source_of(said)
    settings = Settings(steps=how["steps"], seed=seed, **{**said.get("settings", {}), **how.get("settings", {})})
    measured = runs.Measured(
        tuple(said.get("metrics", ())),
        said.get("features", "auto"),
        how.get("samples", 1000),
        how.get("examples", 1000),
    )
    found, more = {}, how.get("options", {})
    for name in more:
        choose(name, (*models.names(), *strategies.names()), "model or strategy")
    for row in rows:
        of_model, of_strategy = more.get(row.model.model, {}), more.get(row.strategy, {})
        chosen = runs.Chosen(
            row.model.model, row.strategy, of_model | row.model.options, of_strategy | row.options, row.told
        )
        place = folder / file_name(row.label)
        found[row.label] = runs.run(
            chosen,
            source._replace(fraction=row.fraction),
            out=place,
            settings=replace(settings, steps=round(how["steps"] * row.length)),
            measured=measured,
            progress=progress,
        ) | {"folder": place.name}
    metrics = [m for m in LOWER_IS_BETTER if any(m in f["metrics"] for f in found.values())]
    equal = len({row.length for row in rows}) == 1  # else models alone have learnt for longer than some rows
    alone = next((found[row.label] for row in rows if equal and row.strategy == "separate"), None)
    published = any(row.published for row in rows)
    return {
        "protocol": _protocol(next(iter(found.values())), _updates(how["steps"], rows), measured),
        "columns": [*_columns(metrics, alone), *(["published"] if published else [])],
        "rows": [
            [row.label, *_line(found[row.label], metrics, alone), *([row.published] if published else [])]
            for row in rows
        ],
        "notes": [_ratio(a, b, found) for a, b in said.get("ratio", [])],
        "pictures": _pictures(found, metrics[0], folder, show=said.get("show", True)),
    }


def source_of(said: Mapping[str, Any]) -> runs.Source:
    """Where the tasks of an experiment come from."""
    data = (said["data"],) if isinstance(said["data"], str) else tuple(said["data"])
    return runs.Source(**{"data": data, **{k: _tuple(v) for k, v in said["stream"].items()}})


def rows_of(said: Mapping[str, Any]) -> list[Row]:
    """The rows of an experiment, checked; a ValueError for an unknown strategy or option and for a label said twice."""
    rows = [_row(one, said["model"]) for one in said["strategies"]]
    labels = [file_name(row.label).lower() for row in rows]
    if twice := [row.label for row, label in zip(rows, labels, strict=True) if labels.count(label) > 1]:
        raise ValueError(f"Expected labels that differ, got {twice[0]!r} twice.")
    return rows


def _row(said: str | Mapping[str, Any], model: str | Mapping[str, Any]) -> Row:
    given = {"strategy": said} if isinstance(said, str) else said
    name = choose(given.get("strategy", ""), strategies.names(), "strategy")
    options = {k: _tuple(v) for k, v in given.items() if k not in _OWN}
    for option in options:
        choose(option, strategies.options(name), f"option of {name}")
    if (length := float(given.get("length", 1.0))) <= 0:
        raise ValueError(f"Expected a length above 0 of {given.get('label', name)}, got {length:g}.")
    return Row(
        str(given.get("label", name)),
        name,
        options,
        variants([given.get("model", model)])[0],
        choose(given.get("told", "auto"), get_args(runs.Told), "value of told"),  # pyright: ignore[reportArgumentType]
        float(given.get("fraction", 1.0)),
        length,
        str(given.get("published", "")),
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _updates(steps: int, rows: Sequence[Row]) -> str:
    if all(row.length == 1 for row in rows):
        return f"{steps} updates a task for every row"
    lengths = ", ".join(f"{round(steps * length)}" for length in sorted({row.length for row in rows}))
    return f"{lengths} updates a task"


def _protocol(found: Mapping[str, Any], updates: str, measured: runs.Measured) -> str:
    about = found["stream"]
    detail = (
        f" ({about['detail']})" if "detail" in about else f" (alpha {about['alpha']:g})" if "alpha" in about else ""
    )
    protocol = found["protocol"]
    tested = (
        f"training examples held out ({about['held_out']:.0%})" if "held_out" in about else "official test examples"
    )
    return (
        f"{about['rule']}{detail}, {len(found['tasks'])} tasks, {updates}; after the "
        f"last task {measured.samples} samples and at most {measured.examples} {tested} of each task, "
        f"features {protocol['features']} {protocol['features_hash']}. Mean over tasks ± the standard error from the "
        "tasks' own errors."
    )


def _columns(metrics: Sequence[str], alone: Mapping[str, Any] | None) -> list[str]:
    main = metrics[0]
    transfer = [f"gain over separate models ({main})"] if alone else []
    return ["strategy", *metrics, f"forgetting ({main})", f"backward transfer ({main})", *transfer, "kept, MiB"]


def _line(found: Mapping[str, Any], metrics: Sequence[str], alone: Mapping[str, Any] | None) -> list[str]:
    main, last = metrics[0], found["rows"][-1]
    cells = [_final(last["scores"][m]) if m in last["scores"] else "" for m in metrics]
    summary = found["summary"].get(main, {})
    cells += [f"{summary[k]:.3g}" if k in summary else "" for k in ("forgetting", "backward_transfer")]
    if alone is not None:
        cells.append(f"{_forward(found, alone, main):.3g}" if summary and found is not alone else "")
    return [*cells, f"{sum(last['kept'].values()) / 2**20:.2f}"]


def _mean(scores: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Mean over tasks, and its standard error from those of the tasks, which have test examples of their own."""
    errors = [s["standard_error"] for s in scores]
    return sum(s["value"] for s in scores) / len(scores), math.sqrt(sum(e * e for e in errors)) / len(scores)


def _final(scores: Sequence[Mapping[str, float]]) -> str:
    value, error = _mean(scores)
    return pm(value, error, digits=3 if abs(value) < 2 else 2)


def _forward(found: Mapping[str, Any], alone: Mapping[str, Any], metric: str) -> float:
    matrix, other = ([[s["value"] for s in row["scores"][metric]] for row in f["rows"]] for f in (found, alone))
    diagonal = [row[-1] for row in other]
    return gain_over_alone(matrix, diagonal, lower_is_better=LOWER_IS_BETTER[metric])


def _ratio(a: str, b: str, found: Mapping[str, Any]) -> str:
    """The ratio of mean distances; its interval by the delta method, the errors of a and b taken as independent."""
    (one, e1), (other, e2) = (
        _mean(found[choose(label, found, "row")]["rows"][-1]["scores"]["frechet"]) for label in (a, b)
    )
    ratio = one / other
    half = 1.96 * abs(ratio) * math.hypot(e1 / one, e2 / other)
    return f"{a} / {b} = {ratio:.2f} [{ratio - half:.2f}, {ratio + half:.2f}] in mean Fréchet distance."


def _pictures(found: Mapping[str, Any], metric: str, folder: Path, *, show: bool) -> dict[str, str]:
    matrices = {
        label: [[s["value"] for s in row["scores"][metric]] for row in f["rows"]]
        for label, f in found.items()
        if metric in f["metrics"]
    }
    pictures.heat_maps(matrices, metric, folder / "matrices.png")
    first, last = next(iter(found.values())), len(next(iter(found.values()))["tasks"]) - 1
    shown = {"tasks": f"{first['folder']}/stream.png", f"{metric} of each task": "matrices.png"}
    for label, f in found.items():
        for kind in ("samples", "recalled") if show else ():
            images = f"{f['folder']}/{kind}/{last:03d}.png"
            if (folder / images).exists():
                shown[f"{kind}, {label}"] = images
    return shown
