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


def squared_radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row (N, d) to its k-th nearest other row, (N,)."""
    if not 1 <= k < len(x):
        raise ValueError(f"Expected 1 <= k < {len(x)} rows, got k = {k}.")
    radii = x.new_empty(len(x))
    for rows, squares in square_distances(x, x):
        here = torch.arange(len(squares), device=x.device)
        squares[here, here + rows.start] = torch.inf
        radii[rows] = squares.topk(k, largest=False).values[:, -1]
    return radii


class Balls(NamedTuple):
    """Which of M points lie in which of N balls, counted."""

    held: Tensor  # (N,) points in each ball
    around: Tensor  # (M,) balls around each point
    depends: Tensor  # (N,) points that lie in this ball alone
    needed: Tensor  # (M,) balls that hold this point alone


def count(centres: Tensor, squared: Tensor, points: Tensor) -> Balls:
    """Counts of |point_j - centre_i|^2 <= squared_i."""
    n, m = len(centres), len(points)
    index_n, index_m = (torch.arange(size, device=centres.device) for size in (n, m))
    column = torch.stack([torch.ones_like(index_m), index_m], 1).to(centres)  # a sum of indices names a lone one
    held, around = centres.new_empty(n, 2), centres.new_zeros(m, 2)
    for rows, squares in square_distances(centres, points):
        inside = torch.le(squares, squared[rows, None], out=squares)
        held[rows] = inside @ column
        row = torch.stack([torch.ones_like(index_n[rows]), index_n[rows]], 1).to(centres)
        around += inside.T @ row

    def lone(found: Tensor, size: int) -> Tensor:
        return found[found[:, 0] == 1, 1].long().bincount(minlength=size)

    return Balls(held[:, 0].long(), around[:, 0].long(), lone(around, n), lone(held, m))


def _spread(x: Tensor) -> float:
    """The variance of a mean of these values."""
    return float(x.double().var()) / len(x)


def _covered(covered: Tensor, leans: Tensor) -> tuple[float, float]:
    """A share and its standard error: binomial, plus what changes when one point of the other set is left out.

    The second part is the jackknife's N sum (share lost without i)^2, up to its mean.
    """
    lost = leans.double() * len(leans) / len(covered)
    return float(covered.double().mean()), (_spread(covered) + _spread(lost)) ** 0.5


class PrecisionRecall(NamedTuple):
    precision: Estimate
    recall: Estimate


def improved_precision_recall(
    *, real: Array, generated: Array, k: int = 3, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> PrecisionRecall:
    """Share of generated points in some real ball, and of real points in some generated ball.

    real (N, d), generated (M, d). The standard errors treat the radii as given. Both shares depend on N and M, so they
    compare only at equal sizes. Reference: Kynkäänniemi et al. (2019), eqs. 1 and 2.
    """
    x, y = centred(*pair(real, generated))
    shared: dict[str, Any] = {"n": (len(x), len(y)), "protocol": protocol, "level": level, "estimator": f"k = {k}"}
    a, b = count(x, squared_radii(x, k), y), count(y, squared_radii(y, k), x)
    return PrecisionRecall(
        estimate(*_covered(a.around > 0, a.depends), **shared, metric="improved precision"),
        estimate(*_covered(b.around > 0, b.depends), **shared, metric="improved recall"),
    )


class DensityCoverage(NamedTuple):
    density: Estimate
    coverage: Estimate


def density_coverage(
    *, real: Array, generated: Array, k: int = 5, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> DensityCoverage:
    """Density: real balls around a generated point, over k. Coverage: share of real balls that hold a generated point.

    real (N, d), generated (M, d). For equal distributions E density = 1 and, at N = M large, coverage -> 1 - 2^{-k}; the
    standard errors treat the radii as given. Reference: Naeem et al. (2020), eqs. 4 and 5.
    """
    x, y = centred(*pair(real, generated))
    shared: dict[str, Any] = {"n": (len(x), len(y)), "protocol": protocol, "level": level, "estimator": f"k = {k}"}
    balls = count(x, squared_radii(x, k), y)
    share = len(x) / (k * len(y))
    error = (_spread(balls.around / k) + _spread(balls.held * share)) ** 0.5
    return DensityCoverage(
        estimate(float(balls.around.double().mean()) / k, error, **shared, metric="density"),
        estimate(*_covered(balls.held > 0, balls.needed), **shared, metric="coverage"),
    )
