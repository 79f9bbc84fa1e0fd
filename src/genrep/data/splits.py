"""Training, validation and test: from arrays to a set that says what it is.

What a source does not split is held out at random, once, from (seed): a tenth, at most 5,000 examples, with the classes
in proportion. The generator is NumPy's frozen one, so that a split is the same in every version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Data, DataSpec
from genrep.data.batches import InMemory

SPLITS = ("train", "validation", "test")
_LARGEST = 5000  # examples held out: more would not sharpen an estimate enough to be worth the training data


_ROWS_CHECKED = 10_000
_FEW = 0.05  # of the rows: a column with fewer distinct values is called out


class Part(NamedTuple):
    """Examples of one split, as NumPy holds them."""

    x: np.ndarray  # (N, *shape)
    y: np.ndarray | None = None  # (N,) integer labels, -1 for unknown, or (N, C) conditions in the user's units


class Splits(NamedTuple):
    """A data set; `about` is JSON: source, split, counts, what was inferred, names of classes and columns."""

    name: str
    train: Data
    validation: Data
    test: Data
    about: dict[str, Any]

    @property
    def spec(self) -> DataSpec:
        return self.train.spec

    def condition(self, values: Any) -> Tensor:
        """Conditions in the user's units to those the data hold, (value - mean) / std; shape (C,) or (N, C)."""
        if not self.spec.condition:
            raise ValueError(f"{self.name} has no condition columns. Load it with condition=(names,).")
        mean, std = torch.tensor(self.about["condition_mean"]), torch.tensor(self.about["condition_std"])
        return (torch.as_tensor(values, dtype=torch.float32) - mean) / std


def hold_out(n: int, count: int, seed: int, strata: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held) of n examples with `count` held out at random; both ascending.

    With `strata` (N,), each stratum loses its share of `count`, rounded; it keeps an example if it can.

    >>> [len(part) for part in hold_out(100, 10, seed=0)]
    [90, 10]
    """
    if not 0 < count < n:
        raise ValueError(f"Cannot hold {count} of {n} examples out: give more examples or splits of your own.")
    order = np.random.RandomState(checked_seed(seed)).permutation(n)
    if strata is None:
        return np.sort(order[count:]), np.sort(order[:count])
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    quota = _quotas(sizes, count)
    held = np.concatenate([order[stratum[order] == s][:q] for s, q in enumerate(quota)])
    return np.setdiff1d(np.arange(n), held), np.sort(held)


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many of each stratum to take so that they sum to count, where every stratum can keep one example."""
    share = sizes * count / sizes.sum()
    quota = np.minimum(np.floor(share).astype(int), sizes - 1)
    while quota.sum() < count:
        room = quota < sizes - 1 if (quota < sizes - 1).any() else quota < sizes
        quota[np.argmax(np.where(room, share - quota, -np.inf))] += 1
    return quota


def checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise ValueError(f"Expected a seed in [0, 2**32), got {seed}.")
    return seed


def take(part: Part, index: np.ndarray) -> Part:
    return Part(part.x[index], None if part.y is None else part.y[index])


def complete(parts: Mapping[str, Part], seed: int) -> tuple[dict[str, Part], list[str]]:
    """The three splits, with those that lack held out of train, and a sentence for each that says so."""
    parts, rules, n = dict(parts), [], len(parts["train"].x)
    count = min(_LARGEST, max(1, round(n / 10)))
    for split in ("test", "validation"):
        if split in parts:
            continue
        train = parts["train"]
        labelled = train.y is not None and train.y.ndim == 1
        kept, held = hold_out(len(train.x), count, seed, train.y if labelled else None)
        parts["train"], parts[split] = take(train, kept), take(train, held)
        how = "in proportion to the classes, " if labelled else ""
        rules.append(f"{split}: {count} of the {n} given for training, held out at random ({how}seed {seed}).")
    return parts, rules


def assemble(
    name: str,
    parts: Mapping[str, Part],
    *,
    levels: int | None,
    seed: int,
    about: Mapping[str, Any],
    channels: Sequence[str] = (),
) -> Splits:
    """Splits in memory from checked arrays: x integers in [0, levels), or float32 and finite.

    `about` may hold "class_names", "condition" (names) and "split" (sentences on official splits); `channels`: names of
    the columns or channels of x, for messages. Moments of real-valued x and of conditions are those of the training
    split.
    """
    complete_parts, rules = complete(parts, seed)
    train, about = complete_parts["train"], {**about, "split": [*about.get("split", ()), *rules]}
    classes = _count_classes(complete_parts, about)
    mean, std = (), ()
    if levels is None:
        mean, std = moments(train.x, names := channels or column_names(train.x), "column")
        about["inferred"] = [*about.get("inferred", ()), *degenerate(train.x, names)]
    condition: tuple[float, ...] = ()
    if train.y is not None and train.y.ndim == 2:
        names = about.setdefault("condition", [f"condition {i}" for i in range(train.y.shape[1])])
        condition, scale = moments(train.y, names, "condition")
        about |= {"condition_mean": list(condition), "condition_std": list(scale)}
        complete_parts = {
            k: Part(p.x, ((p.y - condition) / scale).astype(np.float32) if p.y is not None else None)
            for k, p in complete_parts.items()
        }
    spec = DataSpec(tuple(train.x.shape[1:]), levels, classes, len(condition), mean, std)
    about["counts"] = {split: len(complete_parts[split].x) for split in SPLITS}
    held = {split: _tensors(part, spec) for split, part in complete_parts.items()}
    return Splits(name, train=held["train"], validation=held["validation"], test=held["test"], about=about)


def column_names(x: np.ndarray) -> list[str]:
    """What messages call the columns of a table or the channels of images that have no names."""
    return [f"{'column' if x.ndim == 2 else 'channel'} {i}" for i in range(x.shape[1])]


def moments(x: np.ndarray, names: Sequence[str], what: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each column or channel of x (N, C, ...); ValueError names the constant ones."""
    axes = (0, *range(2, x.ndim))
    low, high = x.min(axes), x.max(axes)
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    if constant := [n for n, same in zip(names, (low == high) | (std.astype(np.float32) == 0), strict=True) if same]:
        raise ValueError(
            f"Every training example has the same {what} {', '.join(constant)}: leave constant columns out."
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def degenerate(x: np.ndarray, names: Sequence[str]) -> list[str]:
    """Notes on columns of a table (N, D) that leave a density unbounded: equal ones, and those of few values."""
    if x.ndim != 2:
        return []
    x = x[:_ROWS_CHECKED]
    _, first = np.unique(x, axis=1, return_index=True)
    equal = [names[i] for i in range(x.shape[1]) if i not in first]
    few = [name for name, column in zip(names, x.T, strict=True) if len(np.unique(column)) < _FEW * len(x)]
    notes = [f"equal to another column: {', '.join(equal)}"] if equal else []
    notes += [f"few distinct values: {', '.join(few)}"] if few else []
    return [f"{note}; a density over them can grow without bound" for note in notes]


def _count_classes(parts: Mapping[str, Part], about: dict[str, Any]) -> int:
    """The number of classes; their counts in each split go into `about`, unknown labels apart."""
    y = parts["train"].y
    if y is None or y.ndim != 1:
        return 0
    labels = {split: part.y for split, part in parts.items() if part.y is not None}
    classes = len(about["class_names"]) if "class_names" in about else max(int(y.max()) for y in labels.values()) + 1
    about["class_counts"] = {s: np.bincount(y[y >= 0], minlength=classes).tolist() for s, y in labels.items()}
    if unknown := {s: int((y < 0).sum()) for s, y in labels.items() if (y < 0).any()}:
        about["unlabelled"] = unknown
    return classes


def _tensors(part: Part, spec: DataSpec) -> InMemory:
    x = torch.from_numpy(np.require(part.x, requirements=("C", "W")))
    if part.y is None:
        return InMemory(x, None, spec)
    return InMemory(x, torch.from_numpy(part.y.astype(np.int64 if part.y.ndim == 1 else np.float32)), spec)
