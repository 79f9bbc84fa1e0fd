"""Fréchet distance between Gaussians fitted to features, plug-in and extrapolated to infinite samples.

    FD = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^{1/2} S2 S1^{1/2})^{1/2}

With S = A^T A for any factor A the last trace is the nuclear norm of A1 A2^T, which needs no inverse: singular
covariances are exact. Reference: Dowson & Landau (1982), eq. 4; as a measure of samples, Heusel et al. (2017), eq. 6.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.evaluation.arrays import Array, group_of, pair
from genrep.evaluation.estimate import Estimate, jackknifed
from genrep.evaluation.linear import cholesky, eigenvalues, product


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of rows: their number, sum (d,) and sum of outer products (d, d), float64."""

    n: int
    total: Tensor
    outer: Tensor

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, self.total - other.total, self.outer - other.outer)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.outer + other.outer)


def moments(x: Tensor, shift: Tensor | None = None, block: int = 2048) -> Moments:
    """Moments of the rows of x (N, d), less `shift` (d,); in float64 by blocks of rows."""
    total = x.new_zeros(x.shape[1], dtype=torch.float64)
    outer = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(block):
        part = part.double() if shift is None else part.double() - shift
        total += part.sum(0)
        outer += product(part.T, part)
    return Moments(len(x), total, outer)


class Gaussian(NamedTuple):
    """Mean (d,) and a factor A (r, d) of the covariance A^T A."""

    mean: Tensor
    factor: Tensor


def gaussian(m: Moments) -> Gaussian:
    """Mean and unbiased covariance of the rows behind the moments."""
    mean = m.total / m.n
    covariance = (m.outer - m.n * torch.outer(mean, mean)) / (m.n - 1)
    lower = cholesky(covariance)
    if lower is None:  # singular: eigenvalues below zero are rounding
        values, vectors = torch.linalg.eigh(covariance)
        return Gaussian(mean, values.clamp(min=0).sqrt()[:, None] * vectors.T)
    return Gaussian(mean, lower.T)


def fit(x: Tensor) -> Gaussian:
    """The Gaussian of the rows of x (N, d); below d rows its factor is the centred rows themselves."""
    mean = x.mean(0, dtype=torch.float64)
    if len(x) <= x.shape[1]:
        return Gaussian(mean, (x.double() - mean) / (len(x) - 1) ** 0.5)
    found = gaussian(moments(x, mean))  # of centred rows, little cancels
    return Gaussian(found.mean + mean, found.factor)


def between(a: Gaussian, b: Gaussian) -> float:
    """The Fréchet distance of two Gaussians."""
    cross = product(a.factor, b.factor.T)
    gram = product(cross, cross.T) if cross.shape[0] <= cross.shape[1] else product(cross.T, cross)
    nuclear = eigenvalues(gram).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum() - 2 * nuclear)


def plug_in(*, real: Array, generated: Array) -> float:
    """The Fréchet distance of the sample moments: what papers print.

    It is biased upwards by about c/N, with a c that depends on the model, so it compares only at equal N.
    """
    a, b = pair(real, generated)
    return between(fit(a), fit(b))


class _Side:
    """One sample in random groups, the first half of them one half of the sample; keeps the moments of the halves."""

    def __init__(self, x: Tensor, groups: int, seed: int) -> None:
        group = group_of(len(x), groups, seed)
        order = group.argsort(stable=True).to(x.device)
        self.rows = torch.split(x[order], group.bincount(minlength=groups).tolist())
        middle = groups // 2
        self.halves = [moments(torch.cat(self.rows[part])) for part in (slice(middle), slice(middle, None))]

    def without(self, group: int | None) -> list[Moments]:
        """Moments of the whole and of both halves, without the rows of one group."""
        halves = list(self.halves)
        if group is not None:
            halves[group >= len(self.rows) // 2] -= moments(self.rows[group])
        return [halves[0] + halves[1], *halves]


def extrapolated(whole: float, halves: tuple[float, float], inverse: tuple[float, float, float]) -> float:
    """The limit of F + c/N from a sample and its halves; `inverse` holds the three 1/N. Equal halves: 2 F - mean F_h.

    >>> extrapolated(1 + 3 / 100, (1 + 3 / 50, 1 + 3 / 50), (1 / 100, 1 / 50, 1 / 50))
    1.0
    """
    small = (inverse[1] + inverse[2]) / 2
    weight = small / (small - inverse[0])
    return weight * whole - (weight - 1) * (halves[0] + halves[1]) / 2


def frechet_distance(
    *,
    real: Array,
    generated: Array,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Fréchet distance at infinite samples: Richardson extrapolation 2 FD(N) - mean FD(N/2), both sides halved.

    real (N, d), generated (M, d). Error and interval come from a delete-group jackknife, of which every replicate
    extrapolates anew. The value can be below zero where the distance is small; it is then not different from zero.
    Warns when N or M is below 2 d: the halves are then singular, and their bias is not c/N.

    Reference: Chong & Forsyth (2020) extrapolate the generated side; halving both sides and the jackknife are ours.
    """
    if groups < 4 or groups % 2:
        raise ValueError(f"Expected an even number of groups, at least 4, got {groups}.")
    a, b = (x.double() for x in pair(real, generated))
    n, stated = (len(a), len(b)), {"metric": "frechet", "estimator": f"richardson, jackknife {groups}", "seed": seed}
    if min(n) < 2 * a.shape[1]:
        stated["warning"] = (
            f"{min(n)} samples for {a.shape[1]} features; the extrapolation needs at least {2 * a.shape[1]}"
        )
        warnings.warn(f"Fréchet distance: {stated['warning']}. Take more samples or fewer features.", stacklevel=2)
    shift = a.mean(0)
    sides = (_Side(a - shift, groups, seed), _Side(b - shift, groups, seed + 1))
    wholes = [side.without(None) for side in sides]
    base = [between(gaussian(x), gaussian(y)) for x, y in zip(*wholes, strict=True)]
    value = _extrapolate(base, *wholes)
    replicates = [_replicate(sides, g, base) for g in range(groups)]
    return jackknifed(value, replicates, n=n, protocol=protocol, level=level, **stated)


def _extrapolate(distances: list[float], a: list[Moments], b: list[Moments]) -> float:
    whole, first, second = (1 / x.n + 1 / y.n for x, y in zip(a, b, strict=True))
    return extrapolated(distances[0], (distances[1], distances[2]), (whole, first, second))


def _replicate(sides: tuple[_Side, _Side], group: int, base: list[float]) -> float:
    a, b = (side.without(group) for side in sides)
    untouched = 1 if group >= len(sides[0].rows) // 2 else 2
    kept = [base[i] if i == untouched else between(gaussian(a[i]), gaussian(b[i])) for i in range(3)]
    return _extrapolate(kept, a, b)
