"""NumPy files (.npy, .npz) of the user: looked at before they are unpacked, never a pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from genrep.data.arrays import Layout, as_numpy, from_parts
from genrep.data.splits import Part, Splits
from genrep.naming import choose

_PREFIXES = {"train": ("train_", ""), "validation": ("validation_", "valid_", "val_"), "test": ("test_",)}
_MOST_ARRAYS = 1000  # in one file
_X, _Y = ("x", "images"), ("y", "labels")


class Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the array in memory."""
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        return size


def read_numpy(
    path: Path,
    *,
    label: str | None,
    condition: Sequence[str],
    levels: int | None,
    layout: Layout | None,
    seed: int,
    memory_limit: int,
) -> Splits:
    """Splits from one `.npy` array x, or from an `.npz` with x (or images), y (or labels), bare or as train_x, test_x.

    `label` names another array (N,) to take labels from, `condition` arrays (N,) or (N, C), in each split of the file.
    """
    about: dict[str, Any] = {"source": str(path), "inferred": []}
    if path.suffix.lower() == ".npy":
        if label or condition:
            raise ValueError(f"{path} holds one array: label= and condition= need an .npz with arrays of those names.")
        parts = {"train": Part(load_arrays(path, None, memory_limit)["x"])}
    else:
        parts = _parts(path, label, condition, memory_limit, about)
    return from_parts(path.stem, parts, levels=levels, layout=layout, seed=seed, about=about)


def load_arrays(path: Path, names: Sequence[str] | None, memory_limit: int) -> dict[str, np.ndarray]:
    """The arrays of that name (None: all; a `.npy` is one array, "x"), after a look at the headers.

    Raises ValueError for pickled objects, damage, and more than `memory_limit` bytes in memory.
    """
    headers = read_headers(path)
    wanted = list(headers) if names is None else list(names)
    for name in wanted:
        if headers[name].dtype.hasobject:
            raise ValueError(
                f"{name} in {path} holds pickled objects, which could run code: save plain numbers instead."
            )
    if (size := sum(headers[name].size for name in wanted)) > memory_limit:
        raise ValueError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, more than memory_limit={memory_limit / 2**30:.1f} GiB. "
            "Raise memory_limit= if you trust the file."
        )
    try:
        if path.suffix.lower() == ".npy":
            return {"x": np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in wanted}
    except Exception as error:  # the parsers of NumPy, zip, deflate and Python raise what they like on hostile bytes
        raise _damaged(path, error) from error


def read_headers(path: Path) -> dict[str, Header]:
    """Shape and type of every array in the file; nothing is unpacked. ValueError if the file holds something else."""
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"x": _header(file, path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            found: dict[str, Header] = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found or not name or set(name) & set("/\\:"):
                    raise ValueError(f"expected different plain names of arrays, got {member.filename!r:.60}")
                with archive.open(member) as file:
                    found[name] = _header(file, member.file_size)
                if len(found) > _MOST_ARRAYS:
                    raise ValueError(f"more than {_MOST_ARRAYS} arrays")
            return found
    except Exception as error:  # as in load_arrays
        raise _damaged(path, error) from error


def _header(file: IO[bytes], size: int) -> Header:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = read(file)
    header = Header(shape, dtype)
    if min(shape, default=0) < 0 or dtype.itemsize == 0:  # negative sizes can multiply to what the file holds
        raise ValueError(f"its header promises an array {shape} of {dtype}")
    if not dtype.hasobject and header.size != size - file.tell():
        raise ValueError(f"its header promises {header.size} bytes, it holds {size - file.tell()}")
    return header


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or not a NumPy file: {error}.")


def _parts(
    path: Path, label: str | None, condition: Sequence[str], memory_limit: int, about: dict[str, Any]
) -> dict[str, Part]:
    """Which arrays of the file are x and y of which split."""
    held = read_headers(path)
    chosen = {split: _keys(path, list(held), prefixes, label, condition) for split, prefixes in _PREFIXES.items()}
    chosen = {split: keys for split, keys in chosen.items() if keys is not None}
    if "train" not in chosen:
        raise ValueError(
            f"Expected arrays x and y (or images and labels, or train_x ...) in {path}, it holds {list(held)}."
        )
    used = [key for x, ys in chosen.values() for key in (x, *ys)]
    names = [key for key in ("class_names",) if key in held and label is None and held[key].dtype.kind == "U"]
    about["inferred"] += [f"{split}: {' and '.join((x, *ys))}" for split, (x, ys) in chosen.items()]
    if rest := [key for key in held if key not in (*used, *names)]:
        about["inferred"].append(f"left out: {', '.join(rest)}")
    arrays = load_arrays(path, [*used, *names], memory_limit)
    if names and any(ys for _, ys in chosen.values()) and not condition:
        about["class_names"] = arrays["class_names"].tolist()
    if condition:
        about["condition"] = _condition_names(condition, [arrays[key] for key in chosen["train"][1]])
    return {split: Part(arrays[x], _y([arrays[k] for k in ys], bool(condition))) for split, (x, ys) in chosen.items()}


def _keys(
    path: Path, held: list[str], prefixes: Sequence[str], label: str | None, condition: Sequence[str]
) -> tuple[str, list[str]] | None:
    """Names of x and of what makes y in one split; None if the file has no such split."""
    for prefix in prefixes:
        if not (x := _one(path, held, [prefix + name for name in _X])):
            continue
        if label or condition:
            own = [key.removeprefix(prefix) for key in held if key.startswith(prefix) and key != x]
            return x, [prefix + choose(name, own, f"array of {path}") for name in ([label] if label else condition)]
        y = _one(path, held, [prefix + name for name in _Y])
        return x, [y] if y else []
    return None


def _one(path: Path, held: list[str], names: list[str]) -> str | None:
    found = [name for name in names if name in held]
    if len(found) > 1:
        raise ValueError(f"{path} holds both {found[0]} and {found[1]}: keep one.")
    return found[0] if found else None


def _y(arrays: list[np.ndarray], conditional: bool) -> np.ndarray | None:
    if not conditional:
        return arrays[0] if arrays else None
    columns = [as_numpy(a, "a condition").reshape(len(a), -1).astype(np.float32) for a in arrays]
    if len({len(c) for c in columns}) > 1:
        raise ValueError(f"The condition arrays differ in length: {[len(c) for c in columns]}.")
    return np.concatenate(columns, axis=1)


def _condition_names(names: Sequence[str], arrays: list[np.ndarray]) -> list[str]:
    widths = [int(np.prod(a.shape[1:])) for a in arrays]
    return [n if w == 1 else f"{n}[{i}]" for n, w in zip(names, widths, strict=True) for i in range(w)]
