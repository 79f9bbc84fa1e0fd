"""Data sets: named ones, and files, folders and arrays of the user; all as `Splits` of random-access `Data`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrep.data.arrays import Layout, from_arrays
from genrep.data.batches import InMemory, Order, Subset, batch_indices
from genrep.data.describe import contact_sheet, describe
from genrep.data.files import read_numpy
from genrep.data.folders import Folder, read_folder
from genrep.data.huggingface import PREFIX, is_saved, read_datasets
from genrep.data.memory import free_memory
from genrep.data.named import SOURCES, names, read_named
from genrep.data.parquet import read_parquet
from genrep.data.pictures import grid, picture
from genrep.data.prepared import labelled as with_labels
from genrep.data.prepared import reshaped, unlabelled
from genrep.data.showers import holds_responses, read_responses
from genrep.data.splits import Splits
from genrep.data.tables import read_table
from genrep.data.text import as_text, from_text, read_text
from genrep.naming import choose

__all__ = [
    "Folder",
    "InMemory",
    "Order",
    "Splits",
    "Subset",
    "as_text",
    "batch_indices",
    "contact_sheet",
    "describe",
    "from_arrays",
    "from_text",
    "grid",
    "load",
    "names",
    "picture",
    "reshaped",
    "unlabelled",
    "with_labels",
]


_LARGEST = 8 * 2**30  # bytes that are held in memory without being asked


def load(
    name_or_path: str | os.PathLike[str],
    *,
    label: str | None = None,
    condition: Sequence[str] = (),
    levels: int | None = None,
    layout: Layout | None = None,
    shape: Sequence[int] = (),
    labelled: float = 1.0,
    seed: int = 0,
    memory_limit: int | None = None,
) -> Splits:
    """A named data set, or one of your own: a folder of images, a `.npy`, `.npz`, `.csv`, `.parquet` or `.txt` file,
    a folder that `datasets` saved, or `hf:NAME` from its hub.

    A name wins over a folder of that name: write "./mnist" for the folder.

    label, condition: columns of a table, arrays of an `.npz` or attributes of a named set that become y; not both.
    levels: integers are in [0, levels) else inferred. layout: NCHW or NHWC, else inferred. seed: of what is held out.
    shape: bring images to (C, H, W), or text to windows of (L,) characters, see `reshaped`. labelled: share of the
    training examples that keep their labels, equally many of each class, see `with_labels`.
    memory_limit: bytes, None: 8 GiB, or half of what is free if that is less; larger sets of images are read on access,
    larger files are refused.

    `about["origin"]` holds these arguments, so that a run knows its data.
    Raises ValueError for an unknown name, and for data that are damaged, ambiguous or do not fit together.

    >>> digits = load("digits")
    >>> digits.spec.shape, digits.spec.levels, len(digits.train), len(digits.validation), len(digits.test)
    ((1, 8, 8), 17, 1197, 240, 360)
    """
    condition = _checked_names(label, condition)
    limit = min(_LARGEST, free_memory() // 2) if memory_limit is None else memory_limit
    splits = _read(name_or_path, label, condition, levels, layout, seed, limit)
    splits = with_labels(reshaped(splits, shape) if shape else splits, labelled, seed)
    named = isinstance(name_or_path, str) and (name_or_path in SOURCES or name_or_path.startswith(PREFIX))
    splits.about["origin"] = {
        "data": str(name_or_path if named else Path(name_or_path).absolute()),
        "label": label,
        "condition": condition,
        "levels": levels,
        "layout": layout,
        "shape": list(shape) or None,
        "labelled": labelled,
        "seed": seed,
    }
    return splits


def _read(
    name_or_path: str | os.PathLike[str],
    label: str | None,
    condition: list[str],
    levels: int | None,
    layout: Layout | None,
    seed: int,
    memory_limit: int,
) -> Splits:
    if isinstance(name_or_path, str) and name_or_path in SOURCES:
        _refuse(f"named set {name_or_path}", levels=levels, layout=layout)
        return read_named(name_or_path, label=label, condition=condition, seed=seed)
    how: dict[str, Any] = {"levels": levels, "seed": seed, "memory_limit": memory_limit}
    path = Path(name_or_path)
    if str(name_or_path).startswith(PREFIX) or is_saved(path):
        _refuse("set of the library datasets", layout=layout)
        source = str(name_or_path) if str(name_or_path).startswith(PREFIX) else path
        return read_datasets(source, label=label, condition=condition, **how)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"There is no file or folder {path}.")
        choose(str(name_or_path), names(), "data set")
    if path.is_dir():
        _refuse("folder of images", label=label, condition=condition or None, layout=layout)
        return read_folder(path, **how)
    if not path.is_file():
        raise ValueError(f"Expected a file or folder, {path} is a device or pipe.")
    return _read_file(path, label, condition, layout, **how)


def _read_file(path: Path, label: str | None, condition: list[str], layout: Layout | None, **how: Any) -> Splits:
    suffix = path.suffix.lower()
    if holds_responses(path):
        _refuse("file of responses and particles", label=label, condition=condition or None, layout=layout)
        return read_responses(path, seed=how["seed"], memory_limit=how["memory_limit"])
    if suffix in (".npy", ".npz"):
        return read_numpy(path, label=label, condition=condition, layout=layout, **how)
    if suffix in (".csv", ".tsv", ".parquet"):
        _refuse("table", layout=layout)
        read = read_parquet if suffix == ".parquet" else read_table
        return read(path, label=label, condition=condition, **how)
    if suffix == ".txt":
        _refuse("text", label=label, condition=condition or None, levels=how["levels"], layout=layout)
        return read_text(path, seed=how["seed"], memory_limit=how["memory_limit"])
    kinds = ".npy, .npz, .csv, .parquet or .txt"
    raise ValueError(f"Expected a folder of images or a file ending in {kinds}, got {path}.")


def _checked_names(label: str | None, condition: Sequence[str]) -> list[str]:
    if isinstance(condition, str):
        raise ValueError(f"Expected condition as a list of names, got {condition!r}: pass [{condition!r}].")
    if label and condition:
        raise ValueError("A set has labels or conditions, not both: pass label= or condition=.")
    if len(set(condition)) < len(condition):
        raise ValueError(f"Expected different names as condition, got {list(condition)}.")
    return list(condition)


def _refuse(what: str, **options: Any) -> None:
    """A ValueError for options that were given and mean nothing for this kind of source."""
    if given := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"A {what} takes no {', '.join(given)}=: leave it out.")
