"""Precision and recall of samples from balls around neighbours: improved precision and recall, density and coverage.

Ball i of a set reaches to the k-th neighbour of point i within that set. Memory holds one block of distances at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.evaluation.arrays import Array, centred, pair, square_distances
from genrep.evaluation.estimate import Estimate, estimate


def squared_radii(x: Tensor, k: int, block: int = 1024) -> Tensor:
    """Squared distance of each row (N, d) to its k-th nearest other row, (N,); every pair is measured once."""
    if not 1 <= k < len(x):
        raise ValueError(f"Expected 1 <= k < {len(x)} rows, got k = {k}.")
    norm, best = x.square().sum(1), x.new_full((len(x), k), torch.inf)

    def improve(rows: slice, candidates: Tensor) -> None:
        nearest = candidates.topk(min(k, candidates.shape[1]), largest=False).values
        best[rows] = torch.cat([best[rows], nearest], 1).topk(k, largest=False).values

    for start in range(0, len(x), block):
        rows, after = slice(start, start + block), slice(start + block, None)
        squares = (x[rows] @ x[start:].T).mul_(-2).add_(norm[rows, None]).add_(norm[start:]).clamp_(min=0)
        squares.diagonal().fill_(torch.inf)
        improve(rows, squares)
        if start + block < len(x):
            improve(after, squares[:, block:].T.contiguous())
    return best[:, -1]


class Incidence(NamedTuple):
    """Counts of a relation between N rows and M columns."""

    row: Tensor  # (N,) columns related to each row
    column: Tensor  # (M,)
    only_row: Tensor  # (N,) columns that are related to this row alone
    only_column: Tensor  # (M,)


def within(x: Tensor, y: Tensor, *limits: Tensor) -> list[Incidence]:
    """Counts of |x_i - y_j|^2 <= limit, for limits (N, 1) or (1, M), in one pass over the distances."""
    n, m = len(x), len(y)
    index = torch.arange(max(n, m), device=x.device)
    marks = torch.stack([torch.ones_like(index), index], 1).to(x)  # a sum of indices names one that is alone
    row, column = x.new_empty(len(limits), n, 2), x.new_zeros(len(limits), m, 2)
    for rows, squares in square_distances(x, y):
        for i, limit in enumerate(limits):
            inside = (squares <= (limit if len(limit) == 1 else limit[rows])).to(x.dtype)
            row[i, rows] = inside @ marks[:m]
            column[i] += inside.T @ marks[rows]

    def alone(counts: Tensor, size: int) -> Tensor:
        return counts[counts[:, 0] == 1, 1].long().bincount(minlength=size)

    return [
        Incidence(r[:, 0].long(), c[:, 0].long(), alone(c, n), alone(r, m)) for r, c in zip(row, column, strict=True)
    ]


def _spread(x: Tensor) -> float:
    """The variance of a mean of these values."""
    return float(x.double().var()) / len(x)


def _covered(covered: Tensor, leans: Tensor) -> tuple[float, float]:
    """A share and its standard error: binomial, plus what changes when one point of the other set is left out.

    The second part is the jackknife's N sum (share lost without i)^2, up to its mean.
    """
    lost = leans.double() * len(leans) / len(covered)
    return float(covered.double().mean()), (_spread(covered) + _spread(lost)) ** 0.5


class PRDC(NamedTuple):
    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def prdc(
    *, real: Array, generated: Array, k: int = 5, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> PRDC:
    """Improved precision and recall (published with k = 3), density and coverage (k = 5), from three distance matrices.

    precision: share of generated points in some real ball; recall: of real points in some generated ball; density: real
    balls around a generated point, over k; coverage: share of real balls that hold a generated point.

    real (N, d), generated (M, d). For equal distributions E density = 1 and, at large N = M, coverage = 1 - 2^{-k}. All
    depend on N and M and compare only at equal sizes; the standard errors treat the radii as given. In float32, equal
    rows may be told apart by rounding: pass float64 where duplicates matter.

    Reference: Kynkäänniemi et al. (2019), eqs. 1 and 2; Naeem et al. (2020), eqs. 4 and 5.
    """
    x, y = centred(*pair(real, generated))
    by_real, by_generated = within(x, y, squared_radii(x, k)[:, None], squared_radii(y, k)[None])
    share = len(x) / (k * len(y))
    density = float(by_real.column.double().mean()) / k
    error = (_spread(by_real.column / k) + _spread(by_real.row * share)) ** 0.5

    def stated(value: float, error: float, name: str) -> Estimate:
        how: dict[str, Any] = {"protocol": protocol, "level": level, "metric": name, "estimator": f"k = {k}"}
        return estimate(value, error, n=(len(x), len(y)), **how)

    return PRDC(
        stated(*_covered(by_real.column > 0, by_real.only_row), "improved precision"),
        stated(*_covered(by_generated.row > 0, by_generated.only_column), "improved recall"),
        stated(density, error, "density"),
        stated(*_covered(by_real.row > 0, by_real.only_column), "coverage"),
    )
