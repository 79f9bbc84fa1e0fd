"""Tables whose columns have types (Parquet, Hugging Face): numbers become x, others may serve as label or condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genrep.data.arrays import from_parts
from genrep.data.splits import Part, Splits
from genrep.naming import choose

Columns = Mapping[str, Sequence[Any] | np.ndarray]  # values by name; None: missing


def from_columns(
    name: str,
    tables: Mapping[str, Columns],
    *,
    label: str | None,
    condition: Sequence[str],
    levels: int | None,
    seed: int,
    about: dict[str, Any],
    class_names: Sequence[str] = (),
) -> Splits:
    """Splits of a table, from the columns of each split that the source has.

    `class_names`: those of the label, where the source numbers its classes itself.
    """
    train = tables["train"]
    for split, table in tables.items():
        if list(table) != list(train):
            raise ValueError(
                f"The splits of {name} have different columns: {list(train)} and, in {split}, {list(table)}."
            )
    for column in (*condition, *([label] if label else [])):
        choose(column, train, f"column of {name}")
    features = [column for column in train if column != label and column not in condition]
    if not features:
        raise ValueError(f"{name} has no columns left besides label and condition.")
    about |= {"columns": features}
    classes = class_names or (_classes(train[label], label, name) if label else ())
    if label:
        about["class_names"] = [str(c) for c in classes]
    if condition:
        about["condition"] = list(condition)
    parts = {}
    for split, table in tables.items():
        where = f"{name}, {split}"
        y = None
        if label:
            y = numbered(table[label], classes, f"{where}, column {label}", numbers=bool(class_names))
        elif condition:
            y = _stacked(table, condition, where).astype(np.float32)
        parts[split] = Part(_stacked(table, features, where), y)
    return from_parts(name, parts, levels=levels, seed=seed, about=about, columns=features)


def _stacked(table: Columns, columns: Sequence[str], where: str) -> np.ndarray:
    """Columns side by side (N, D): integers stay integers if all are."""
    found = [_numbers(table[column], f"{where}, column {column}") for column in columns]
    whole = all(values.dtype.kind in "biu" for values in found)
    return np.stack([values if whole else values.astype(np.float32) for values in found], axis=1)


def _numbers(values: Sequence[Any] | np.ndarray, where: str) -> np.ndarray:
    """One column (N,) of integers or floats; a ValueError names what is missing, text or a list."""
    if missing := [i for i, v in enumerate(values) if v is None][:1]:
        raise ValueError(f"{where}, row {missing[0]}: expected a number, got nothing. Fill it in or leave the row out.")
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        kind = f"lists of shape {found.shape[1:]}" if found.ndim > 1 else f"such as {values[0]!r:.40}"
        raise ValueError(f"{where}: expected numbers, got {kind}. Name it as label=, or leave the column out.")
    return found


def _classes(values: Sequence[Any] | np.ndarray, label: str | None, name: str) -> list[Any]:
    """The sorted distinct values of a label."""
    held = [v for v in (values.tolist() if isinstance(values, np.ndarray) else values) if v is not None]
    if any(isinstance(v, float) and not v.is_integer() for v in held):
        raise ValueError(f"Column {label} of {name} is real-valued, not a label: pass condition=['{label}'] instead.")
    if not all(isinstance(v, (str, int, float)) for v in held):
        raise ValueError(
            f"Column {label} of {name} holds {type(held[0]).__name__}, expected text or integers as label."
        )
    distinct = set(held)
    if len(distinct) == len(held):
        raise ValueError(f"Column {label} of {name} has a different value in every row: it is no label.")
    return sorted(distinct)


def numbered(values: Sequence[Any] | np.ndarray, classes: Sequence[Any], where: str, *, numbers: bool) -> np.ndarray:
    """Labels (N,), -1 for unknown; `numbers`: the values are numbers of classes already."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if numbers:
        found = np.array([-1 if v is None else int(v) for v in listed])
        if found.min() < -1 or found.max() >= len(classes):
            raise ValueError(f"{where}: expected labels in 0..{len(classes) - 1}, got {found.min()}..{found.max()}.")
        return found
    number = {c: i for i, c in enumerate(classes)}
    if unknown := [v for v in listed if v is not None and v not in number][:1]:
        raise ValueError(f"{where}: {unknown[0]!r:.40} is no class of the training split.")
    return np.array([-1 if v is None else number[v] for v in listed])
