"""Data sets of the library `datasets`: a folder that `save_to_disk` wrote, or `hf:NAME` from the hub.

A column of images makes it a set of images, decoded on access where they do not fit into memory; otherwise the numbers
are a table. The label is the column of classes, if there is one, or the one that `label=` names.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Batch, DataSpec
from genrep.data import folders
from genrep.data.arrays import from_parts
from genrep.data.batches import Subset
from genrep.data.columns import from_columns, numbered
from genrep.data.splits import SPLITS, Part, Splits, complete
from genrep.extras import extra
from genrep.naming import choose

PREFIX = "hf:"
_MARKS = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` leaves in a folder
_CHECKED = 1000  # images read at a time when their format is checked


def is_saved(path: Path) -> bool:
    """Whether a folder is one that `save_to_disk` wrote."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_datasets(
    source: str | Path, *, label: str | None, condition: Sequence[str], levels: int | None, seed: int, memory_limit: int
) -> Splits:
    """Splits from a saved folder (a path) or from the hub (text that begins with hf:)."""
    library = extra("datasets", "datasets", "Sets of the library datasets")
    name = source.removeprefix(PREFIX) if isinstance(source, str) else source.name
    try:
        held = library.load_dataset(name) if isinstance(source, str) else library.load_from_disk(str(source))
    except Exception as error:  # the library raises what it likes on hostile files, and when the hub is not reached
        raise ValueError(f"{source} cannot be read by datasets: {' '.join(str(error).split())[:200]}.") from error
    parts = {"train": held} if isinstance(held, library.Dataset) else dict(held)
    parts = {s: parts[s] for s in SPLITS if s in parts}
    if "train" not in parts:
        raise ValueError(f"{source} has the splits {list(held)}: expected train, and perhaps validation and test.")
    features, about = parts["train"].features, dict[str, Any](source=str(source), inferred=[])
    images = [c for c, kind in features.items() if isinstance(kind, library.Image)]
    classes = [c for c, kind in features.items() if isinstance(kind, library.ClassLabel)]
    if len(images) > 1:
        raise ValueError(f"{source} has {len(images)} columns of images, {images}: keep one, with remove_columns.")
    if label is None and not condition and len(classes) == 1:
        label = classes[0]
        about["inferred"].append(f"label {label}: the column of classes")
    names = features[label].names if label in classes else ()
    if not images:
        tables = {s: {c: part[c][:] for c in part.column_names} for s, part in parts.items()}
        how: dict[str, Any] = {"label": label, "condition": condition, "levels": levels, "seed": seed}
        return from_columns(name, tables, class_names=names, about=about, **how)
    if condition:
        raise ValueError(f"{source} holds images: label= may name a column, condition= may not.")
    if label is not None:
        choose(label, features, f"column of {source}")
    raw = {s: part.cast_column(images[0], library.Image(decode=False)) for s, part in parts.items()}
    if not isinstance(source, str):
        for part in raw.values():
            _check_inside(part, images[0], source)
    ys = _labels(name, raw, label, names, about)
    return _images(name, raw, images[0], ys, levels=levels, seed=seed, memory_limit=memory_limit, about=about)


def _check_inside(rows: Any, column: str, source: Path) -> None:
    """A ValueError for a saved set that points to files elsewhere; `save_to_disk` writes the images themselves."""
    for start in range(0, len(rows), _CHECKED):
        for i, image in enumerate(rows[start : start + _CHECKED][column]):
            if image is not None and image["bytes"] is None and image["path"]:
                raise ValueError(
                    f"Row {start + i} of {source} is the path {image['path']!r:.60}, not an image: what it points to "
                    "is not read. Save the set again with save_to_disk, which takes the images in."
                )


def _labels(
    name: str, raw: Mapping[str, Any], label: str | None, names: Sequence[str], about: dict[str, Any]
) -> dict[str, np.ndarray | None]:
    if label is None:
        return dict.fromkeys(raw)
    classes = names or sorted(set(raw["train"][label][:]) - {None})
    about["class_names"] = [str(c) for c in classes]
    return {s: numbered(part[label][:], classes, f"{name}, {s}", numbers=bool(names)) for s, part in raw.items()}


class Rows:
    """Images in rows of a data set, decoded on access: memory holds one batch."""

    def __init__(self, rows: Any, column: str, y: Tensor | None, form: folders.Format, spec: DataSpec) -> None:
        self.rows, self.column, self.y, self.form, self.spec = rows, column, y, form, spec

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Batch:
        index = index.cpu()
        x = torch.from_numpy(self.decoded(index.tolist()))
        return Batch(x, None if self.y is None else self.y[index])

    def decoded(self, index: Sequence[int]) -> np.ndarray:
        """Pixels (N, C, H, W) of these rows."""
        return folders.decode_all(_files(self.rows, self.column, index), self.form)


class _Bytes(io.BytesIO):
    """An image in memory, with a name for messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.named = name

    def __str__(self) -> str:
        return self.named


def _files(rows: Any, column: str, index: Sequence[int]) -> list[Any]:
    """What PIL can open, for each of these rows; a ValueError for one that holds no image."""
    held = rows[list(index)][column]
    found = []
    for i, image in zip(index, held, strict=True):
        if image is None or (image["bytes"] is None and not image["path"]):
            raise ValueError(f"Row {i} holds no image in column {column}: take it out.")
        found.append(image["path"] if image["bytes"] is None else _Bytes(image["bytes"], f"row {i}"))
    return found


def _images(
    name: str,
    raw: Mapping[str, Any],
    column: str,
    ys: Mapping[str, np.ndarray | None],
    *,
    levels: int | None,
    seed: int,
    memory_limit: int,
    about: dict[str, Any],
) -> Splits:
    form = _common_format(raw, column)
    if levels is not None and levels != 1 << form.bits:
        raise ValueError(f"Images of {form.bits} bits have {1 << form.bits} levels, got levels={levels}.")
    n = sum(len(rows) for rows in raw.values())
    about["inferred"].append(f"{n} images, {form}")
    spec = DataSpec((form.bands, form.size[1], form.size[0]), 1 << form.bits, len(about.get("class_names", ())))
    whole = {s: Rows(rows, column, None, form, spec) for s, rows in raw.items()}
    if n * spec.size <= memory_limit:
        parts = {s: Part(data.decoded(range(len(data))), ys[s]) for s, data in whole.items()}
        return from_parts(name, parts, levels=spec.levels, layout="NCHW", seed=seed, about=about)
    about["inferred"].append(f"read on access: {n * spec.size / 2**30:.1f} GiB of pixels")
    numbers, rules = complete({s: Part(np.arange(len(data)), ys[s]) for s, data in whole.items()}, seed)
    about |= {"split": rules, "counts": {s: len(numbers[s].x) for s in SPLITS}}
    if spec.classes:
        about["class_counts"] = {
            s: np.bincount(p.y[p.y >= 0], minlength=spec.classes).tolist()
            for s, p in numbers.items()
            if p.y is not None
        }
    views: dict[str, Subset] = {}
    for split, part in numbers.items():
        home = split if split in whole else "train"  # what was held out comes from there
        y = ys[home]
        data = Rows(raw[home], column, None if y is None else torch.from_numpy(y.astype(np.int64)), form, spec)
        views[split] = Subset(data, torch.from_numpy(part.x))
    return Splits(name, views["train"], views["validation"], views["test"], about)


def _common_format(raw: Mapping[str, Any], column: str) -> folders.Format:
    """The format of all images, from their headers."""
    first = None
    for split, rows in raw.items():
        for start in range(0, len(rows), _CHECKED):
            index = range(start, min(start + _CHECKED, len(rows)))
            for i, file in zip(index, _files(rows, column, index), strict=True):
                form = folders.read_format(file)
                first = first or form
                if form != first:
                    raise ValueError(
                        f"All images must have one size and kind: one is {first}, row {i} of {split} {form}."
                    )
    if first is None:
        raise ValueError(f"There are no rows with images in column {column}.")
    return first
