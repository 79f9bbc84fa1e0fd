"""Are samples closer to the training data than held-out data is?  That, and no more, is what these tests can say.

Held-out data calibrate both: they must be drawn as the training data were, and samples must be independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from sklearn.cluster import KMeans
from torch import Tensor

from genrep.evaluation.arrays import Array, features, square_distances
from genrep.evaluation.estimate import Estimate, estimate, proportion


class Nearest(NamedTuple):
    distance: Tensor  # (N,)
    row: Tensor  # (N,) the nearest row


def nearest(x: Tensor, train: Tensor) -> Nearest:
    """The nearest training row of each row of x (N, d); where x is the training set itself, the nearest other."""
    distance, row = x.new_empty(len(x)), torch.empty(len(x), dtype=torch.long, device=x.device)
    shift = train.mean(0)
    a, b = x - shift, train - shift
    for rows, squares in square_distances(a, b):
        if x is train:
            here = torch.arange(len(squares), device=x.device)
            squares[here, here + rows.start] = torch.inf
        row[rows] = squares.argmin(1)
        distance[rows] = (a[rows] - b[row[rows]]).square().sum(1).sqrt()  # again, without cancellation
    return Nearest(distance, row)


class Criticism(NamedTuple):
    """A statistic, and the probability of one as extreme if samples lay as far from training data as held-out data."""

    estimate: Estimate
    p_value: float


def _three(train: Array, held_out: Array, generated: Array) -> tuple[Tensor, Tensor, Tensor]:
    a, b, c = features(train, "train"), features(held_out, "held_out"), features(generated, "generated")
    if not a.shape[1] == b.shape[1] == c.shape[1]:
        raise ValueError(
            f"Expected equal widths, got {a.shape[1]}, {b.shape[1]}, {c.shape[1]}; use one feature extractor."
        )
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), c.dtype)
    return a.to(kind), b.to(a.device, kind), c.to(a.device, kind)


def copying(
    *,
    train: Array,
    held_out: Array,
    generated: Array,
    cells: int = 1,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Criticism:
    """C_T: are samples nearer to the training rows than held-out rows are?  Negative: nearer, a sign of copying.

        C_T = sum_c w_c Z_c,    Z_c = (U_c - n m / 2) / sqrt(n m (n + m + 1) / 12)

    U_c counts the pairs in cell c whose sample is farther than the held-out row (ties count half, the variance is
    corrected for them); cells are k-means clusters of the training rows, w_c the share of held-out rows. Cells without
    10 rows of both kinds are left out; the protocol says how many. Given equal distances C_T has mean 0 and variance
    sum w^2, whence standard error and one-sided p-value. Reference: Meehan, Chaudhuri & Dasgupta (2020), section 4.
    """
    x, held, fake = _three(train, held_out, generated)
    d_held, d_fake = nearest(held, x).distance.cpu().numpy(), nearest(fake, x).distance.cpu().numpy()
    cell_held, cell_fake = _cells(x, held, fake, cells, seed)
    scores, weights = [], []
    for c in range(cells):
        a, b = d_held[cell_held == c], d_fake[cell_fake == c]
        if min(len(a), len(b)) >= 10:
            scores.append(mann_whitney(a, b))
            weights.append(len(a))
    if not scores:
        raise ValueError(
            f"No cell holds 10 held-out rows and 10 samples; take more of them, or fewer than {cells} cells."
        )
    w = np.asarray(weights) / sum(weights)
    value, error = float(w @ np.asarray(scores)), math.sqrt(float(w @ w))
    found = estimate(
        value,
        error,
        n=(len(held), len(fake)),
        protocol=protocol,
        level=level,
        metric="C_T",
        estimator=f"{len(scores)} of {cells} cells",
        seed=seed,
        train=len(x),
    )
    return Criticism(found, float(stats.norm.cdf(value / error)))


def _cells(train: Tensor, held: Tensor, fake: Tensor, cells: int, seed: int) -> tuple[np.ndarray, ...]:
    if cells == 1:
        return np.zeros(len(held), dtype=int), np.zeros(len(fake), dtype=int)
    means = KMeans(cells, random_state=seed).fit(train.cpu().numpy())
    centres = torch.from_numpy(means.cluster_centers_).to(train)
    return tuple(nearest(points, centres).row.cpu().numpy() for points in (held, fake))


def mann_whitney(a: np.ndarray, b: np.ndarray) -> float:
    """The z of the number of pairs with b above a; 0 where all values tie.

    >>> round(mann_whitney(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])), 4)
    1.964
    """
    n, m = len(a), len(b)
    ranks = stats.rankdata(np.concatenate([a, b]))
    u = ranks[n:].sum() - m * (m + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    variance = n * m / 12 * (total + 1 - float((ties.astype(float) ** 3 - ties).sum()) / (total * (total - 1)))
    return float((u - n * m / 2) / math.sqrt(variance)) if variance > 0 else 0.0


def authenticity(
    *, train: Array, held_out: Array, generated: Array, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> Criticism:
    """Share of samples that are authentic: not nearer to a training row than that row's own nearest neighbour.

    A sample x with nearest training row t is called a copy when |x - t| < min_{t' != t} |t - t'|. By this rule many
    held-out rows are copies too (about half), so the protocol carries their share, and the p-value is Fisher's exact
    one, that copies are not commoner among samples. Reference: Alaa et al. (2022), section 4.3.
    """
    x, held, fake = _three(train, held_out, generated)
    reach = nearest(x, x).distance

    def authentic(points: Tensor) -> Tensor:
        distance, index = nearest(points, x)
        return distance >= reach[index]

    ours, theirs = authentic(fake), authentic(held)
    share, n = float(ours.double().mean()), len(ours)
    copies, total = int((~ours).sum()), int((~ours).sum() + (~theirs).sum())
    found = proportion(
        share,
        n,
        n=(len(held), n),
        protocol=protocol,
        level=level,
        metric="authenticity",
        held_out=float(theirs.double().mean()),
        train=len(x),
    )
    return Criticism(found, float(stats.hypergeom.sf(copies - 1, n + len(theirs), total, n)))
