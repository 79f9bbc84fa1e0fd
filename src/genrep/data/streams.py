"""Streams: data that arrive in tasks, each with training, validation and test examples of its own.

A task holds copies, no views, so that who has the data of one task cannot reach those of another. Everything is a
function of the data and of (seed); all three splits of a task follow the same rule, so that what a task is tested on
are official test examples of the classes, in the proportions, that it is trained on; or, by `held_out`, training
examples that it does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Data, DataSpec
from genrep.data.batches import InMemory
from genrep.data.binary import Redrawn
from genrep.data.splits import SPLITS, Splits, checked_seed, hold_out

_TRIED = 200  # seeds that are looked at for one that fits
_LEAST = {"train": 2, "validation": 1, "test": 2}  # examples of a task
Index = list[np.ndarray]  # of examples, for each task


class Stream(NamedTuple):
    """Tasks in order. `about` is JSON: the rule, and where there are classes their counts, {split: (T, C)}."""

    name: str
    tasks: tuple[Splits, ...]
    about: dict[str, Any]

    @property
    def spec(self) -> DataSpec:
        return self.tasks[0].spec


def class_incremental(splits: Splits, tasks: int, *, order: Sequence[int] = ()) -> Stream:
    """Every class in one task, C / T classes each in their order, the first tasks one more where it does not divide.

    order: classes in the order they come in; by default 0 ... C - 1.
    """
    labels = _labels(splits)
    classes = splits.spec.classes
    if not 1 <= tasks <= classes:
        raise ValueError(f"Expected 1 to {classes} tasks, as many as {splits.name} has classes at most, got {tasks}.")
    if order and sorted(order) != list(range(classes)):
        raise ValueError(f"Expected order= to name each class 0..{classes - 1} once, got {list(order)}.")
    groups = np.array_split(np.asarray(order or range(classes)), tasks)
    index = {split: [np.flatnonzero(np.isin(y, group)) for group in groups] for split, y in labels.items()}
    rule = "classes " + " | ".join(", ".join(map(str, group)) for group in groups)
    return _stream(splits, index, {"rule": "class-incremental", "detail": rule})


def masses(classes: int, tasks: int, *, alpha: float, seed: int, published: bool = True) -> np.ndarray:
    """Shares (C, T) of each class that each task asks for.

    Rows p_c ~ Dirichlet(alpha / T, ..., alpha / T). As published, columns are then rescaled to sum to C / (T + 2), so
    that tasks are equally large, and a row may ask for more, or for less, than all of its class.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"Expected alpha > 0, got {alpha}.")
    if tasks < 1 or classes < 1:
        raise ValueError(f"Expected at least one task and one class, got {tasks} and {classes}.")
    random = np.random.RandomState(checked_seed(seed))
    p = random.dirichlet(np.full(tasks, alpha / tasks), size=classes)
    if not np.isfinite(p).all() or (published and not (p.sum(0) > 0).all()):
        raise ValueError(f"At alpha={alpha:g} some task gets no mass at all: choose a larger alpha or another seed.")
    return p * (classes / (tasks + 2) / p.sum(0)) if published else p


def dirichlet(splits: Splits, tasks: int, *, alpha: float = 1.0, seed: int = 0, published: bool = True) -> Stream:
    """Classes spread over tasks by `masses`: the smaller alpha, the fewer tasks hold a class.

    As published, the shuffled examples of a class are handed out in the order of the tasks, the floor of share times
    count to each, until none is left; what nobody asks for is not used (at alpha 1 and 10 tasks 23 % of the data). Not
    published: every example belongs to exactly one task.

    Reference: Deja et al. (2022), "Multiband VAE", section 5.1, with the rescaling of their released code.
    """
    labels, classes = _labels(splits), splits.spec.classes
    p = masses(classes, tasks, alpha=alpha, seed=seed, published=published)
    _check_filled(splits.name, labels, p, alpha, seed, published=published)
    random = np.random.RandomState((seed + 1) % 2**32)
    index: dict[str, Index] = {}
    for split, y in labels.items():
        parts: list[list[np.ndarray]] = [[] for _ in range(tasks)]
        for c in range(classes):
            mine = random.permutation(np.flatnonzero(y == c))
            for part, got in zip(parts, np.split(mine, _borders(p[c], len(mine), published=published)), strict=False):
                part.append(got)
        index[split] = [np.sort(np.concatenate(part)) for part in parts]
    used = sum(map(len, index["train"])) / len(labels["train"])
    rule = "dirichlet, as published" if published else "dirichlet, all data"
    return _stream(splits, index, {"rule": rule, "alpha": alpha, "seed": seed, "used": round(used, 4)})


def _check_filled(
    name: str, labels: Mapping[str, np.ndarray], p: np.ndarray, alpha: float, seed: int, *, published: bool
) -> None:
    """ValueError, with a seed and an alpha that would do, where a task would have too few examples."""
    classes, tasks = p.shape
    counts = {split: np.bincount(y[y >= 0], minlength=classes) for split, y in labels.items()}

    def lacking(p: np.ndarray) -> list[str]:
        found = []
        for split, of in counts.items():
            sizes = np.sum([np.diff(_borders(p[c], n, published=published), prepend=0) for c, n in enumerate(of)], 0)
            few = [(t + 1, n) for t, n in enumerate(sizes) if n < _LEAST[split]]
            found += [f"task {t} {n} examples of the {split} split" for t, n in few]
        return found

    def fits(alpha: float, seed: int) -> bool:
        try:
            return not lacking(masses(classes, tasks, alpha=alpha, seed=seed, published=published))
        except ValueError:
            return False

    if few := lacking(p):
        other = next((s for s in range(_TRIED) if fits(alpha, s)), None)
        larger = next((a for k in range(1, 9) if fits(a := alpha * 2**k, seed)), None)
        advice = [f"seed={other}"] if other is not None else []
        advice += [f"alpha={larger:g}"] if larger is not None else []
        raise ValueError(
            f"With alpha={alpha:g} and seed={seed}, {name} in {tasks} tasks would give {few[0]}, at least "
            f"{max(_LEAST.values())} are needed: choose {', '.join([*advice, 'fewer tasks'])}."
        )


def _borders(shares: np.ndarray, n: int, *, published: bool) -> np.ndarray:
    """Where the examples of one class are cut; the last piece, behind the last border, belongs to nobody."""
    if published:
        return np.minimum(np.cumsum(np.floor(shares * n).astype(int)), n)
    borders = np.round(np.cumsum(shares) * n).astype(int)
    borders[-1] = n  # the sum of shares is 1 but for rounding
    return borders


def by_condition(splits: Splits, tasks: int, *, column: int = 0) -> Stream:
    """Bands of one condition, from low to high, with equally many training examples: an energy, an angle, a time."""
    if not splits.spec.condition:
        raise ValueError(f"{splits.name} has no condition. Load it with condition= and the name of a column.")
    if not 0 <= column < splits.spec.condition:
        raise ValueError(f"Expected column in 0..{splits.spec.condition - 1}, got {column}.")
    values = {split: _y(getattr(splits, split))[:, column].numpy() for split in SPLITS}
    edges = np.quantile(values["train"], np.arange(1, tasks) / tasks)
    band = {split: np.searchsorted(edges, v, side="right") for split, v in values.items()}
    index = {split: [np.flatnonzero(b == t) for t in range(tasks)] for split, b in band.items()}
    mean, std = (splits.about.get(k, [0.0, 1.0])[column] for k in ("condition_mean", "condition_std"))
    name = splits.about.get("condition", [f"condition {column}"])[column]
    return _stream(
        splits, index, {"rule": f"bands of {name}", "edges": [round(float(e) * std + mean, 6) for e in edges]}
    )


def sequence(*sets: Splits) -> Stream:
    """A task for each data set, in order; what they call by the same name is the same class.

    So digits of another hand share labels (a shift of domain), and clothes after digits are new classes. All sets have
    one shape and levels. Moments of real-valued data are those of the first.
    """
    if not sets:
        raise ValueError("A sequence needs at least one data set.")
    first = sets[0].spec
    for portion in sets:
        spec = portion.spec
        if (spec.shape, spec.levels) != (first.shape, first.levels):
            raise ValueError(
                f"Expected portions of one kind: {sets[0].name} is {first.shape} with levels {first.levels}, "
                f"{portion.name} is {spec.shape} with {spec.levels}. Bring images to one shape= first."
            )
        if spec.condition:
            raise ValueError(f"{portion.name} has a condition, which is scaled by set: load it without, or one set.")
        if bool(spec.classes) != bool(first.classes):
            raise ValueError(f"Either all portions have labels or none: {sets[0].name} and {portion.name} differ.")
    names = list(dict.fromkeys(name for portion in sets for name in _class_names(portion)))
    spec = first._replace(classes=len(names))
    tasks = []
    for portion in sets:
        place = torch.tensor([names.index(name) for name in _class_names(portion)], dtype=torch.int64)
        parts = {s: _apart(getattr(portion, s), None, spec, place if names else None) for s in SPLITS}
        about = {**portion.about, **({"class_names": names} if names else {})}
        tasks.append(Splits(portion.name, parts["train"], parts["validation"], parts["test"], about))
    about = {"rule": "a data set after the other", "sets": [portion.name for portion in sets]}
    return _finished(" -> ".join(portion.name for portion in sets), tasks, about)


def reduced(stream: Stream, fraction: float, *, seed: int = 0) -> Stream:
    """The same stream with a random share of the training examples of every task but the first."""
    if not 0 < fraction <= 1:
        raise ValueError(f"Expected a fraction in (0, 1] of the training examples, got {fraction}.")
    tasks, random = [stream.tasks[0]], np.random.RandomState(checked_seed(seed))
    for task in stream.tasks[1:]:
        count = max(_LEAST["train"], round(fraction * len(task.train)))
        index = np.sort(random.permutation(len(task.train))[:count])
        train = _apart(task.train, torch.from_numpy(index), stream.spec)
        tasks.append(Splits(task.name, train, task.validation, task.test, task.about))
    return _finished(stream.name, tasks, {**stream.about, "fraction": fraction})


def held_out(stream: Stream, share: float, *, seed: int = 0) -> Stream:
    """The same stream tested on a random share of each task's training examples, which leaves the training split.

    Deja et al. (2022) score on 30 % held out so; the official test examples are left out. ValueError for a share
    outside (0, 1), and for one that leaves a task too few examples on either side.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected held_out in (0, 1), a share of the training examples, got {share}.")
    tasks = []
    for t, task in enumerate(stream.tasks):
        n = len(task.train)
        count = round(share * n)
        if count < _LEAST["test"] or n - count < _LEAST["train"]:
            raise ValueError(
                f"Task {t} has {n} training examples; held_out={share:g} would hold {count} of them out. At least "
                f"{_LEAST['test']} are needed to test on and {_LEAST['train']} to learn from."
            )
        kept, held = hold_out(n, count, seed)
        train = _apart(task.train, torch.from_numpy(kept), stream.spec)
        test = _apart(task.train, torch.from_numpy(held), stream.spec)
        tasks.append(task._replace(train=train, test=InMemory(test.x, test.y, stream.spec)))
    return _finished(stream.name, tasks, {**stream.about, "held_out": share})


def by_task(stream: Stream) -> Stream:
    """The same examples with the number of their task as the label, for models that are told the task."""
    spec, tasks = stream.spec._replace(classes=len(stream.tasks), condition=0), []
    names = [f"task {t}" for t in range(len(stream.tasks))]
    for t, task in enumerate(stream.tasks):
        parts = {s: _memory(getattr(task, s)) for s in SPLITS}
        told = {s: d.relabelled(torch.full((len(d),), t), spec) for s, d in parts.items()}
        about = {**{k: v for k, v in task.about.items() if not k.startswith("condition")}, "class_names": names}
        tasks.append(Splits(task.name, told["train"], told["validation"], told["test"], about))
    return Stream(stream.name, tuple(tasks), stream.about)


def union(tasks: Sequence[Splits], name: str) -> Splits:
    """The examples of several tasks together, in their order."""
    parts = {}
    for split in SPLITS:
        data = [_memory(getattr(task, split)) for task in tasks]
        x = torch.cat([d.x for d in data])
        y = None if data[0].y is None else torch.cat([d.y for d in data if d.y is not None])
        parts[split] = InMemory(x, y, tasks[0].spec)
    return Splits(name, parts["train"], parts["validation"], parts["test"], tasks[0].about)


# ---- the parts ---------------------------------------------------------------------------------------------------


def _stream(splits: Splits, index: Mapping[str, Index], about: dict[str, Any]) -> Stream:
    count = len(index["train"])
    tasks = []
    for t in range(count):
        name = f"{splits.name}, task {t + 1} of {count}"
        for split in SPLITS:
            if (got := len(index[split][t])) < _LEAST[split]:
                raise ValueError(
                    f"{name} would have {got} examples of the {split} split, it needs {_LEAST[split]}: choose fewer "
                    "tasks, a larger alpha or another seed."
                )
        parts = {s: _apart(getattr(splits, s), torch.from_numpy(index[s][t]), splits.spec) for s in SPLITS}
        tasks.append(Splits(name, parts["train"], parts["validation"], parts["test"], _inherited(splits)))
    return _finished(splits.name, tasks, about)


_OF_TASKS = ("class_names", "columns", "condition", "condition_mean", "condition_std", "characters", "origin", "source")


def _inherited(splits: Splits) -> dict[str, Any]:
    return {k: v for k, v in splits.about.items() if k in _OF_TASKS}


def _finished(name: str, tasks: Sequence[Splits], about: dict[str, Any]) -> Stream:
    spec = tasks[0].spec
    about["counts"] = {split: [len(getattr(task, split)) for task in tasks] for split in SPLITS}
    if spec.classes:
        about["class_names"] = tasks[0].about.get("class_names") or [str(c) for c in range(spec.classes)]
        about["class_counts"] = {
            split: [_y(getattr(task, split)).clamp_min(-1).add(1).bincount(minlength=spec.classes + 1)[1:].tolist()
                    for task in tasks]
            for split in SPLITS
        }  # fmt: skip
        missing = [
            (t + 1, c)
            for t, (train, test) in enumerate(zip(*(about["class_counts"][s] for s in ("train", "test")), strict=True))
            for c in range(spec.classes)
            if train[c] > test[c] == 0
        ]
        about["untested"] = [f"class {c} of task {t} has no test example" for t, c in missing]
    return Stream(name, tuple(tasks), about)


def _apart(data: Data, index: Tensor | None, spec: DataSpec, place: Tensor | None = None) -> InMemory:
    """A copy of those examples (None: all), so that nothing leads back to the others; `place`: new labels of old."""
    index = torch.arange(len(data)) if index is None else index
    x, y = data[index]
    if y is not None and place is not None:
        y = torch.where(y >= 0, place[y.clamp_min(0)], -1)
    elif not (spec.classes or spec.condition):
        y = None
    if isinstance(data, Redrawn):
        return Redrawn(x, y, spec, data.grey[index])
    return InMemory(x, y, spec)


def _memory(data: Data) -> InMemory:
    assert isinstance(data, InMemory)  # as `_apart` makes it
    return data


def _y(data: Data) -> Tensor:
    y = data.y if isinstance(data, InMemory) else data[torch.arange(len(data))].y
    assert y is not None
    return y


def _labels(splits: Splits) -> dict[str, np.ndarray]:
    """Labels of every split; a ValueError where there are none."""
    if not splits.spec.classes:
        raise ValueError(
            f"This stream splits by class, and {splits.name} has no labels. Name their column with label=, or choose "
            "a stream by condition."
        )
    return {split: _y(getattr(splits, split)).numpy() for split in SPLITS}


def _class_names(splits: Splits) -> list[str]:
    known = splits.about.get("class_names")
    return list(known) if known else [str(c) for c in range(splits.spec.classes)]
