"""How heavy the tails of a table's columns are: the tail index, with an interval.

A column has tail index a where P(|X - median| > x) falls like x^-a; a Student-t column has its degrees of freedom, a
light tail (normal, exponential, bounded) none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from genrep.evaluation.estimate import Estimate, estimate

_LEAST = 200  # rows


class Tail(NamedTuple):
    """One column: `heavy` where the shape parameter is above zero with confidence, then `index` estimates it."""

    heavy: bool
    index: Estimate  # Hill's
    shape: Estimate  # 1 / index of a heavy tail, at most zero for a light one


def tail_index(x: Tensor, *, level: float = 0.95, protocol: dict[str, Any] | None = None) -> Tail:
    """Of one column (N,), from its values farthest from the median.

    Hill, from the k = N^0.5 farthest: 1 / index = mean of log(x_i / x_(k+1)), with relative error 1 / sqrt(k). More
    values would narrow the interval and bias it: over 200 draws of 20,000 rows of a Student-t with 3 degrees of freedom
    the 95 % interval covered 91 % with N^0.5 and 73 % with N^0.6; with 5 degrees of freedom only 62 %.

    Whether there is a heavy tail at all is asked of the moment estimator, which also knows light ones, from the k =
    N^0.6 farthest: M1 + 1 - 1/2 / (1 - M1^2 / M2) with the first two moments of these logarithms, and error
    sqrt((1 + shape^2) / k) (Dekkers, Einmahl & de Haan, 1989).
    Raises ValueError for fewer than 200 finite rows, or a column whose far values are all the same.
    """
    if x.ndim != 1 or len(x) < _LEAST or not bool(x.isfinite().all()):
        raise ValueError(f"Expected at least {_LEAST} finite rows of one column (N,), got shape {tuple(x.shape)}.")
    x = x.double()
    near, k = round(len(x) ** 0.5), round(len(x) ** 0.6)
    far = (x - x.median()).abs().topk(k + 1).values
    if far[k] <= 0 or far[0] == far[near]:
        raise ValueError("The far values of this column are all the same: it has no tail to measure.")
    logs = (far[:k] / far[k]).log()
    first, second = float(logs.mean()), float(logs.square().mean())
    shape = first + 1 - 0.5 / (1 - first**2 / second)
    moments = estimate(
        shape, math.sqrt((1 + max(shape, 0.0) ** 2) / k), n=(len(x), 0), level=level, protocol=protocol,
        metric="tail shape, moment estimator", far_values=k, center="median",
    )  # fmt: skip
    inverse = float((far[:near] / far[near]).log().mean())
    hill = estimate(
        1 / inverse, 1 / (inverse * math.sqrt(near)), n=(len(x), 0), level=level, protocol=protocol,
        metric="tail index, Hill's estimator", far_values=near, center="median",
    )  # fmt: skip
    return Tail(moments.interval[0] > 0, hill, moments)


def tail_indices(x: Tensor, *, level: float = 0.95, protocol: dict[str, Any] | None = None) -> list[Tail]:
    """Of every column of a table (N, D); a ValueError for one without a tail to measure says which."""
    if x.ndim != 2:
        raise ValueError(f"Expected a table (N, D), got shape {tuple(x.shape)}.")
    found = []
    for i, column in enumerate(x.T):
        try:
            found.append(tail_index(column, level=level, protocol=protocol))
        except ValueError as error:
            raise ValueError(f"Column {i}: {error}") from error
    return found


def as_option(tails: Sequence[Tail]) -> tuple[float, ...]:
    """What `tail_flow` takes: the index of each heavy column, at least 0.1, 0 for light ones."""
    return tuple(round(max(t.index.value, 0.1), 2) if t.heavy else 0.0 for t in tails)
