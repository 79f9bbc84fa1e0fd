"""Labels of examples, from a model with a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.contracts import Model, evaluating
from genrep.data.splits import Splits
from genrep.evaluation.estimate import Estimate, proportion

_BATCH = 256


class Classified(NamedTuple):
    """Probabilities (N, classes), the true labels where the data have some, and the accuracy on those known."""

    probabilities: Tensor
    y: Tensor | None
    accuracy: Estimate | None


def probabilities(model: Model, x: Tensor) -> Tensor:
    """p(y | x), (N, classes) float32 on the CPU, of x as the data set holds it.

    Raises Unsupported for a model without a classifier, ValueError for x that does not fit the model.
    """
    model.require("classify")
    with torch.no_grad(), evaluating(model):
        found = [model.inference.label(model.domain.inward(model.check(part))).probs.cpu() for part in x.split(_BATCH)]
    return torch.cat(found)


def classify(model: Model, splits: Splits, split: str = "test", *, examples: int = 0) -> Classified:
    """Classify a split; the accuracy has the binomial standard error. `examples`: the first so many; 0: all.

    Raises ValueError for data of another shape or other classes than the model was made for.
    """
    check_fits(model, splits)
    data = getattr(splits, split)
    x, y = data[torch.arange(min(examples or len(data), len(data)))]
    p = probabilities(model, x)
    if y is None or y.is_floating_point():
        return Classified(p, None, None)
    y, stated = y.cpu(), {"data": splits.name, "split": split}
    known = y >= 0
    found = accuracy((p.argmax(1) == y)[known], stated) if bool(known.any()) else None
    return Classified(p, y, found)


def accuracy(right: Tensor, protocol: Mapping[str, Any] | None = None) -> Estimate:
    """Share of the right ones (N,) bool, as a `proportion`.

    >>> found = accuracy(torch.tensor([True] * 90 + [False] * 10))
    >>> found.value, round(found.standard_error, 3)
    (0.9, 0.03)
    """
    p, n = float(right.double().mean()), len(right)
    return proportion(p, n, n=(n, 0), protocol=protocol, metric="accuracy")


def check_fits(model: Model, splits: Splits) -> None:
    """ValueError unless the data have the shape, levels and classes that the model was made for."""
    check_examples(model, splits)
    mine, theirs = model.data.classes, splits.spec.classes
    if theirs and mine != theirs:
        raise ValueError(f"The model tells {mine} classes apart, {splits.name} has {theirs}.")


def check_examples(model: Model, splits: Splits) -> None:
    """ValueError unless the examples have the shape and levels that the model was made for."""
    mine, theirs = model.data, splits.spec
    if mine.shape != theirs.shape:
        how = f" Bring them there with shape {','.join(map(str, mine.shape))}." if len(mine.shape) == 3 else ""
        raise ValueError(
            f"The model was made for examples of shape {mine.shape}, {splits.name} has {theirs.shape}.{how}"
        )
    if mine.levels != theirs.levels:
        raise ValueError(f"The model was made for {mine.levels} levels, {splits.name} has {theirs.levels}.")
