"""Do samples and data differ as a reference model sees them?  Tests per dimension of its code, and jointly.

Both are encoded by one reference, which should not be the model that is judged. A small p-value says that the two sets
differ; a large one says that this reference and this many rows did not show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from genrep.evaluation.arrays import Array, pair, square_distances
from genrep.evaluation.estimate import Estimate, estimate, holm


class Dimensions(NamedTuple):
    """Every coordinate by itself."""

    rejected: Estimate  # share of coordinates that differ at the level, corrected for their number
    p_value: float  # that none differs: the least corrected p-value
    p_values: tuple[float, ...]  # (d,) corrected (Holm, 1979)
    distance: tuple[float, ...]  # (d,) the greatest difference of the two distribution functions


def dimensions(
    *,
    real: Array,
    generated: Array,
    alpha: float = 0.05,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Dimensions:
    """Kolmogorov-Smirnov tests of every coordinate, their p-values corrected by Holm's method.

    real (N, d), generated (M, d), rows independent. The chance of any false rejection is at most `alpha`, whatever the
    dependence between coordinates; with ties (a constant code, for one) it is smaller.
    """
    a, b = (x.double().cpu().numpy() for x in pair(real, generated))
    tests = [stats.ks_2samp(a[:, j], b[:, j]) for j in range(a.shape[1])]
    corrected = holm([float(t.pvalue) for t in tests])  # pyright: ignore[reportAttributeAccessIssue]
    distance = tuple(float(t.statistic) for t in tests)  # pyright: ignore[reportAttributeAccessIssue]
    share = float(np.mean([p < alpha for p in corrected]))
    found = estimate(
        share,
        float("nan"),
        n=(len(a), len(b)),
        protocol=protocol,
        level=level,
        metric="share of code dimensions that differ",
        estimator=f"Kolmogorov-Smirnov, Holm, {alpha:g}",
        dimensions=a.shape[1],
        worst=int(np.argmax(distance)),
    )
    return Dimensions(found, min(corrected), tuple(corrected), distance)


class Joint(NamedTuple):
    """All coordinates together."""

    distance: Estimate  # squared MMD, with every pair, so positive for equal distributions
    p_value: float


def joint(
    *,
    real: Array,
    generated: Array,
    permutations: int = 500,
    most: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Joint:
    """Squared MMD with a Gaussian kernel, tested by exchanging rows between the two sets.

        p = (1 + #{permutations with a distance at least as large}) / (1 + permutations)

    real (N, d), generated (M, d); of each at most `most` rows, the first after a shuffle, because the kernel matrix of
    all is held. Coordinates are brought to unit variance and the bandwidth to the median distance over the pooled rows,
    which no permutation changes: the test is exact. It is at least 1 / (1 + permutations).

    Reference: Gretton et al. (2012), sections 2 and 6 for the distance; Phipson & Smyth (2010) for the p-value.
    """
    if permutations < 19:
        raise ValueError(f"Expected at least 19 permutations, the least that can reach p = 0.05, got {permutations}.")
    a, b = pair(real, generated)
    draw = torch.Generator().manual_seed(seed)
    a, b = (x[torch.randperm(len(x), generator=draw)[:most].to(x.device)] for x in (a, b))
    kernel = _kernel(torch.cat([a, b]).double())
    n, m = len(a), len(b)
    sign = torch.cat([torch.full((n,), 1.0 / n), torch.full((m,), -1.0 / m)]).to(kernel)
    orders = torch.stack([torch.randperm(n + m, generator=draw) for _ in range(permutations)]).to(kernel.device)
    shuffled = sign[orders]
    null = torch.cat([((part @ kernel) * part).sum(1) for part in shuffled.split(100)])
    value = float(sign @ kernel @ sign)
    tolerance = 1e-12 * float(kernel.abs().max())  # equal in exact arithmetic: counted as at least as large
    p_value = (1 + int((null >= value - tolerance).sum())) / (1 + permutations)
    found = estimate(
        value,
        float("nan"),
        n=(n, m),
        protocol=protocol,
        level=level,
        metric="squared MMD in the code",
        estimator=f"Gaussian, median bandwidth, {permutations} permutations",
        seed=seed,
    )
    return Joint(found, p_value)


def _kernel(rows: Tensor) -> Tensor:
    """exp(-|a - b|^2 / (2 median)), (N, N), after every coordinate got unit variance."""
    scale = rows.std(0)
    rows = (rows - rows.mean(0)) / torch.where(scale > 0, scale, 1.0)
    squares = torch.cat([block.clone() for _, block in square_distances(rows, rows)])
    median = squares[torch.triu_indices(len(rows), len(rows), 1, device=rows.device).unbind()].median()
    return (-squares / (2 * median.clamp_min(torch.finfo(squares.dtype).tiny))).exp()
