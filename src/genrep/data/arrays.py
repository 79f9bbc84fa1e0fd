"""Arrays and tensors of the user: what they are is inferred and said in `about["inferred"]`, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from genrep.data.splits import Part, Splits, assemble, column_names

Layout = Literal["NCHW", "NHWC"]
_CHANNELS = (1, 3, 4)
_MOST_LEVELS = 2**16


def from_arrays(
    x: Any,
    y: Any = None,
    *,
    levels: int | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    name: str = "arrays",
) -> Splits:
    """A data set from arrays or tensors; a tenth each is held out for validation and test.

    x: (N, D), (N, H, W) or (N, C, H, W) / (N, H, W, C); integers are levels in [0, K), floats are real values
    unless `levels` is given. y: None, (N,) integer labels in [0, classes), or (N, C) float conditions, which are
    brought to mean 0 and standard deviation 1 over the training split.

    Raises ValueError for NaN, labels that do not fit, constant columns, and whatever could be read in two ways.

    >>> splits = from_arrays(np.arange(40, dtype=np.uint8).reshape(10, 2, 2), np.arange(10) % 2)
    >>> splits.spec.shape, splits.spec.levels, splits.spec.classes, splits.about["counts"]
    ((1, 2, 2), 256, 2, {'train': 8, 'validation': 1, 'test': 1})
    """
    return from_parts(
        name, {"train": Part(x, y)}, levels=levels, layout=layout, seed=seed, about={"source": "arrays in memory"}
    )


def from_parts(
    name: str,
    parts: Mapping[str, Part],
    *,
    levels: int | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
) -> Splits:
    """As `from_arrays`, for splits that the source may already have; each may lack but train."""
    about = dict(about or {})
    notes = about["inferred"] = list(about.get("inferred", ()))
    xs = _to_images({split: as_numpy(part.x, f"x of {split}") for split, part in parts.items()}, layout, notes)
    _same_kind(xs)
    names = columns or column_names(xs["train"])
    for split, x in xs.items():
        check_finite(x, names, split)
    levels = _levels(xs, levels, notes)
    dtype = np.float32 if levels is None else np.uint8 if levels <= 256 else np.int64
    ready = {split: x.astype(dtype, copy=False) for split, x in xs.items()}
    ys = {split: _checked_y(part.y, len(xs[split]), split) for split, part in parts.items()}
    if len({None if y is None else y.shape[1:] for y in ys.values()}) > 1:
        raise ValueError(
            "Either every split has y of the same kind, or none has: give the missing labels or drop the others."
        )
    _check_classes(ys, about)
    return assemble(
        name, {s: Part(ready[s], ys[s]) for s in parts}, levels=levels, seed=seed, about=about, channels=names
    )


def as_numpy(x: Any, what: str) -> np.ndarray:
    """Integers as they are, floats as float32, or a ValueError that says what came."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() else x).numpy()  # NumPy has no bfloat16
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers as {what}, got {array.dtype}: convert them to integers or floats.")
    if array.size == 0:
        raise ValueError(f"{what} is empty: its shape is {array.shape}.")
    with np.errstate(over="ignore"):  # what overflows is found as infinite
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def check_finite(x: np.ndarray, names: Sequence[str], where: str) -> None:
    """A ValueError that names the first value that is not a finite number."""
    if x.dtype.kind != "f" or np.isfinite(x).all():
        return
    bad = np.argwhere(~np.isfinite(x))
    first = tuple(int(i) for i in bad[0])
    raise ValueError(
        f"{len(bad)} values are not finite as float32; the first is {x[first]} in row {first[0]} of {where}, "
        f"{names[first[1]]}. Fill them in or leave those rows out."
    )


def _to_images(xs: dict[str, np.ndarray], layout: Layout | None, notes: list[str]) -> dict[str, np.ndarray]:
    """Every x as (N, D) or (N, C, H, W)."""
    shape = xs["train"].shape
    if layout not in (None, "NCHW", "NHWC"):
        raise ValueError(f"Expected layout NCHW or NHWC, got {layout!r}.")
    if layout is not None and len(shape) != 4:
        raise ValueError(f"layout= is for arrays (N, C, H, W) or (N, H, W, C); x has shape {shape}.")
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"Expected x of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C), got {shape}.")
    if any(x.ndim != len(shape) for x in xs.values()):
        raise ValueError(f"The splits differ in shape: {', '.join(f'{k} {x.shape}' for k, x in xs.items())}.")
    if len(shape) == 3:
        notes.append(f"images: {shape[1]} x {shape[2]}, grey")
        return {split: x[:, None] for split, x in xs.items()}
    if len(shape) == 2:
        notes.append(f"a table of {shape[1]} columns")
        return xs
    layout, how = (layout, "as given") if layout else (_infer_layout(shape), f"from the shape {shape}")
    notes.append(f"layout {layout}, {how}")
    return {s: x if layout == "NCHW" else x.transpose(0, 3, 1, 2) for s, x in xs.items()}


def _infer_layout(shape: tuple[int, ...]) -> Layout:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        problem = "Both the second and the last size" if first else "Neither the second nor the last size"
        raise ValueError(f"{problem} of x {shape} could be channels (1, 3 or 4): say layout='NCHW' or layout='NHWC'.")
    return "NCHW" if first else "NHWC"


def _same_kind(xs: Mapping[str, np.ndarray]) -> None:
    if len({(x.shape[1:], x.dtype.kind == "f") for x in xs.values()}) > 1:
        found = ", ".join(f"{split} {x.shape} {x.dtype}" for split, x in xs.items())
        raise ValueError(f"The splits differ in shape or type: {found}. Bring them to one shape and type.")


def _levels(xs: Mapping[str, np.ndarray], levels: int | None, notes: list[str]) -> int | None:
    """Number of levels, given or inferred; None for real values. Checks that x is in [0, levels)."""
    dtype = xs["train"].dtype
    low, high = min(x.min() for x in xs.values()), max(x.max() for x in xs.values())
    whole = dtype.kind != "f" or all((x == np.round(x)).all() for x in xs.values())
    if levels is None and dtype.kind == "f":
        hint = "; all values are whole numbers: pass levels= if they are levels" if whole else ""
        notes.append(f"real values{hint}")
        return None
    if levels is None:
        if low < 0:
            raise ValueError(
                f"Expected integers >= 0, the smallest is {low}: shift them to 0, or pass floats for real values."
            )
        levels = 256 if dtype == np.uint8 and high > 1 else int(high) + 1
        levels = 2 if dtype == np.bool_ else levels
        notes.append(f"levels {levels}, from {dtype} with values {int(low)} to {int(high)}")
    if not 2 <= levels <= _MOST_LEVELS:
        raise ValueError(f"Expected 2 to {_MOST_LEVELS} levels, got {levels}: pass floats if these are real values.")
    if not whole or low < 0 or high >= levels:
        raise ValueError(f"Expected whole numbers in [0, {levels}), got {dtype} with values {low} to {high}.")
    return levels


def _checked_y(y: Any, n: int, split: str) -> np.ndarray | None:
    """Labels (N,) int64 or conditions (N, C) float32, or None."""
    if y is None:
        return None
    y = as_numpy(y, f"y of {split}")
    if len(y) != n if y.ndim else True:
        raise ValueError(f"Expected one label for each of the {n} examples of {split}, got y of shape {y.shape}.")
    if y.ndim == 2 and y.dtype.kind == "f":
        check_finite(y, [f"condition {i}" for i in range(y.shape[1])], split)
        return y
    if y.ndim != 1 or y.dtype.kind == "f":
        raise ValueError(
            f"Expected y as integer labels (N,) or float conditions (N, C), got {y.dtype} of shape {y.shape}. "
            "Cast labels to integers; give conditions two dimensions."
        )
    if y.min() < 0:
        raise ValueError(
            f"Expected labels in [0, classes), the smallest of {split} is {y.min()}: number the classes from 0."
        )
    return y.astype(np.int64)


def _check_classes(ys: Mapping[str, np.ndarray | None], about: Mapping[str, Any]) -> None:
    labels = [y for y in ys.values() if y is not None and y.ndim == 1]
    if not labels:
        return
    highest, n, names = max(int(y.max()) for y in labels), len(labels[0]), about.get("class_names")
    if names is not None and highest >= len(names):
        raise ValueError(f"There are {len(names)} class names, but labels up to {highest}.")
    if highest >= n:
        raise ValueError(f"Labels go up to {highest} with only {n} training examples: number the classes 0, 1, 2, ...")
