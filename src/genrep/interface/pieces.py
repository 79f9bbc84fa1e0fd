"""What kinds of experiments share: models trained alike, and finished pieces that are kept in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep import storage
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.evaluation.classification import classify
from genrep.evaluation.estimate import Estimate
from genrep.interface import runs
from genrep.interface.compare import train_row
from genrep.interface.variants import Variant, variants
from genrep.naming import file_name


def rows_of(said: Mapping[str, Any]) -> tuple[list[Variant], Splits]:
    """The rows of an experiment, and its data."""
    return variants(said["models"]), data_sets.load(said["data"], label=said.get("label"))


def trained(
    said: Mapping[str, Any] | Variant,
    splits: Splits,
    folder: Path,
    *,
    steps: int,
    seed: int,
    progress: bool,
    **settings: Any,
) -> Model:
    """A variant trained as in `genrep compare`; a run that was cut off goes on, one that is done is loaded.

    `settings` are for all rows alike, but a model of several players keeps its own learning rates.
    """
    row = said if isinstance(said, Variant) else variants([said])[0]
    objectives: Any = row.build(splits.spec).objectives
    if any(objective.turns != ("model",) for objective in objectives):
        settings.pop("lr", None)
    train_row(row, splits, folder, steps=steps, seed=seed, progress=progress, **settings)
    return runs.load(folder / row.folder)


def kept(folder: Path, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON holds it; from `folder` if an earlier call has finished it."""
    path = folder / f"{file_name(name)}.json"
    if not path.exists():
        storage.write_json(path, make())
    return json.loads(path.read_text(encoding="utf8"))


def accuracy_of(model: Model, splits: Splits) -> dict[str, float]:
    """Of the model's classifier on the test split, as a piece keeps it."""
    found = classify(model, splits).accuracy
    assert found is not None
    return brief(found)


def brief(found: Estimate) -> dict[str, float]:
    """Value and interval, as a piece keeps them."""
    low, high, _ = found.interval
    return {"value": found.value, "low": low, "high": high}


def cell(found: Mapping[str, float] | None, digits: int = 3, percent: str = "") -> str:
    """A value with its interval for a table.

    >>> cell({"value": 0.5, "low": 0.4, "high": 0.6}), cell(None)
    ('0.5 [0.4, 0.6]', '')
    >>> cell({"value": 0.5, "low": 0.4, "high": 0.6}, percent="%")
    '50.0 % [40.0, 60.0]'
    """
    if found is None:
        return ""
    if percent:
        return f"{100 * found['value']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
    return f"{found['value']:.{digits}g} [{found['low']:.{digits}g}, {found['high']:.{digits}g}]"


def pm(value: float, error: float, digits: int = 2) -> str:
    """A number and its standard error, as tables print it.

    >>> pm(1.234, 0.05)
    '1.23 ± 0.05'
    """
    return f"{value:.{digits}f} ± {error:.{digits}f}"
