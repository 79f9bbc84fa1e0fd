"""Transport distances between sets of features, extrapolated to infinite samples.

Between two samples of one distribution a transport distance is positive, by about c/N at a fixed blur or along a fixed
direction. So, as for the Fréchet distance, both sides are halved, 2 D(N) - mean D(N/2), and the error comes from a
delete-group jackknife of which every replicate extrapolates anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genrep.evaluation.arrays import Array, group_of, pair
from genrep.evaluation.estimate import Estimate, jackknifed
from genrep.evaluation.frechet import extrapolated
from genrep.evaluation.kernel import median_distance
from genrep.transport.sinkhorn import sinkhorn
from genrep.transport.sliced import wasserstein_1d

Distance = Callable[[Tensor, Tensor], float]


def extrapolated_distance(
    distance: Distance, x: Tensor, y: Tensor, *, groups: int, seed: int
) -> tuple[float, list[float]]:
    """2 D(N) - mean D(N/2) of rows x (N, d) and y (M, d), and its jackknife replicates without each group."""
    if groups < 4 or groups % 2:
        raise ValueError(f"Expected an even number of groups, at least 4, got {groups}.")
    gx, gy = group_of(len(x), groups, seed).to(x.device), group_of(len(y), groups, seed + 1).to(y.device)

    def parts(left_out: int) -> list[tuple[Tensor, Tensor]]:
        kept_x, kept_y = gx != left_out, gy != left_out
        low_x, low_y = gx < groups // 2, gy < groups // 2
        masks = [(kept_x, kept_y), (kept_x & low_x, kept_y & low_y), (kept_x & ~low_x, kept_y & ~low_y)]
        return [(x[a], y[b]) for a, b in masks]

    def limit(values: list[float], sets: list[tuple[Tensor, Tensor]]) -> float:
        whole, first, second = (1 / len(a) + 1 / len(b) for a, b in sets)
        return extrapolated(values[0], (values[1], values[2]), (whole, first, second))

    everything = parts(-1)
    base, replicates = [distance(a, b) for a, b in everything], []
    for g in range(groups):
        untouched, sets = (1 if g >= groups // 2 else 2), parts(g)
        values = [base[i] if i == untouched else distance(*sets[i]) for i in range(3)]
        replicates.append(limit(values, sets))
    return limit(base, everything), replicates


def sinkhorn_distance(
    *,
    real: Array,
    generated: Array,
    blur: float | None = None,
    groups: int = 10,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """The debiased Sinkhorn divergence with cost |x - y|^2 / 2, extrapolated; about W_2^2 / 2 at a small blur.

    real (N, d), generated (M, d). `blur`: in units of the features; None: half the median distance of the first 1,000
    real rows, which the protocol states. A translation by t costs |t|^2 / 2 at any blur. Below half the median distance
    the bias of a sample is no longer c/N in many dimensions, and equal sets seem far apart: see the null check.
    Reference: Feydy et al. (2019), eq. 3.
    """
    x, y = pair(real, generated)
    width = median_distance(x) / 2 if blur is None else blur
    if not 0 < width < float("inf"):
        raise ValueError(f"Expected a blur above zero, in units of the features, got {width}.")
    shift = x.mean(0)
    x, y = x - shift, y - shift

    def distance(a: Tensor, b: Tensor) -> float:
        return float(sinkhorn(a, b, blur=width).value)

    value, replicates = extrapolated_distance(distance, x, y, groups=groups, seed=seed)
    stated = {"metric": "sinkhorn", "estimator": f"richardson, jackknife {groups}", "blur": width, "seed": seed}
    return jackknifed(value, replicates, n=(len(x), len(y)), protocol=protocol, level=level, **stated)


def sliced_distance(
    *,
    real: Array,
    generated: Array,
    directions: int = 100,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """The mean squared Wasserstein distance W_2^2 along random directions, extrapolated.

    real (N, d), generated (M, d). The directions come from `seed`, so that models are measured along the same ones; the
    error is that of the samples, given the directions. Reference: Bonneel et al. (2015); as published for
    autoencoders, Kolouri et al. (2019), eq. 10.
    """
    x, y = pair(real, generated)
    if directions < 1:
        raise ValueError(f"Expected at least one direction, got {directions}.")
    theta = torch.randn(directions, x.shape[1], generator=torch.Generator().manual_seed(seed)).to(x)
    theta = torch.nn.functional.normalize(theta, dim=1)
    x, y = (x - x.mean(0)) @ theta.T, (y - x.mean(0)) @ theta.T

    def distance(a: Tensor, b: Tensor) -> float:
        return float(wasserstein_1d(a.T, b.T).mean())

    value, replicates = extrapolated_distance(distance, x, y, groups=groups, seed=seed)
    stated = {
        "metric": "sliced wasserstein",
        "estimator": f"richardson, jackknife {groups}",
        "directions": directions,
        "seed": seed,
    }
    return jackknifed(value, replicates, n=(len(x), len(y)), protocol=protocol, level=level, **stated)
