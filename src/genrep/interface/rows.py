"""What kinds of experiments share: rows that are trained once, measured once, and kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep import storage
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.interface import runs
from genrep.interface.variants import Variant, variants


def rows_of(said: Mapping[str, Any]) -> tuple[list[Variant], Splits]:
    """The rows of an experiment, and its data."""
    return variants(said["models"]), data_sets.load(said["data"], label=said.get("label"))


def trained(
    row: Variant, splits: Splits, folder: Path, *, steps: int, seed: int, progress: bool, settings: Mapping[str, Any]
) -> Model:
    """The model of a row after `steps` updates, shared evenly by its stages; one that was cut off goes on.

    `settings` are for all rows alike, but a model of several players keeps its own learning rates.
    """
    run, objectives = folder / row.folder, list(row.build(splits.spec).objectives)
    each = max(1, steps // len(objectives))
    done = any(run.rglob("*.safetensors"))
    if not done:
        if run.exists():  # cut off before its first checkpoint
            shutil.rmtree(run)
        players = {p for objective in objectives for p in objective.turns}  # pyright: ignore[reportGeneralTypeIssues]
        own = {k: v for k, v in settings.items() if k != "lr" or players == {"model"}}
        runs.fit(
            row.model, splits, out=run, steps=each, options=row.options, seed=seed, samples=0, progress=progress, **own
        )
    elif (run / "config.yaml").exists():
        runs.resume(run, steps=each, data=splits, samples=0, progress=progress)
    return runs.load(run)


def kept(folder: Path, row: Variant, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What `make` measured for this row, made once and read from its file afterwards."""
    path = folder / f"{row.folder}.json"
    if not path.exists():
        storage.write_json(path, dict(make()))
    return json.loads(path.read_text(encoding="utf8"))


def pm(value: float, error: float, digits: int = 2) -> str:
    """A number and its standard error, as tables print it.

    >>> pm(1.234, 0.05)
    '1.23 ± 0.05'
    """
    return f"{value:.{digits}f} ± {error:.{digits}f}"
