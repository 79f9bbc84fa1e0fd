"""Precision and recall of distributions: the curve between two histograms over shared clusters.

    alpha(l) = sum_w min(l P(w), Q(w)),    beta(l) = alpha(l) / l,    l = tan(angle)

P real, Q generated: alpha is precision, beta recall. F_8 weighs recall, F_{1/8} precision.
Reference: Sajjadi et al. (2018), eqs. 7 to 9 and section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from genrep.evaluation.arrays import Array, group_of, pair
from genrep.evaluation.estimate import Estimate, jackknifed


class Curve(NamedTuple):
    precision: Tensor  # (angles,)
    recall: Tensor
    f8: Estimate  # recall, mostly
    f1_8: Estimate  # precision, mostly


def curve(p: Tensor, q: Tensor, angles: int = 1001) -> tuple[Tensor, Tensor]:
    """Precision and recall, each (..., angles), of histograms p (real) and q (generated), each (..., clusters).

    >>> a, b = curve(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))  # one of two modes: all precise, half recalled
    >>> round(float(a.max()), 3), round(float(b.max()), 3)
    (1.0, 0.5)
    """
    edge = 1e-6
    slope = torch.linspace(edge, math.pi / 2 - edge, angles, dtype=torch.float64).tan()
    precision = torch.minimum(slope[:, None] * p.double()[..., None, :], q.double()[..., None, :]).sum(-1)
    return precision, precision / slope


def f_score(precision: Tensor, recall: Tensor, beta: float) -> Tensor:
    """The max over the curve of (1 + beta^2) precision recall / (beta^2 precision + recall), (...,)."""
    tiny = torch.finfo(torch.float64).tiny  # both are zero where the supports are disjoint
    return ((1 + beta**2) * precision * recall / (beta**2 * precision + recall).clamp(min=tiny)).amax(-1)


def precision_recall_curve(
    *,
    real: Array,
    generated: Array,
    clusters: int = 20,
    angles: int = 1001,
    runs: int = 10,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Curve:
    """Curve, F_8 and F_{1/8} over `runs` clusterings of the union of both sets.

    real (N, d), generated (M, d). Curves are averaged over the runs. The errors come from a jackknife over groups of
    rows with the clusters held; a cluster is as large as both sets make it, so unequal N and M shift the curve.
    """
    x, y = pair(real, generated)
    if clusters > len(x) + len(y):
        raise ValueError(f"Expected at most {len(x) + len(y)} clusters, one a row, got {clusters}.")
    gx, gy = group_of(len(x), groups, seed), group_of(len(y), groups, seed + 1)
    both, curves = torch.cat([x, y]).cpu().numpy(), []
    for run in range(runs):
        means = MiniBatchKMeans(clusters, n_init=10, batch_size=1024, random_state=seed + run)  # pyright: ignore[reportArgumentType]: takes int
        labels = torch.from_numpy(np.asarray(means.fit(both).labels_, dtype=np.int64))
        p, q = _counts(labels[: len(x)], gx, groups, clusters), _counts(labels[len(x) :], gy, groups, clusters)
        curves.append(torch.stack(curve(_without_each(p), _without_each(q), angles)))
    precision, recall = torch.stack(curves).mean(0)  # (1 + groups, angles); row 0 is the whole

    def score(beta: float, name: str) -> Estimate:
        value, *replicates = f_score(precision, recall, beta).tolist()
        return jackknifed(
            value,
            replicates,
            n=(len(x), len(y)),
            protocol=protocol,
            level=level,
            metric=name,
            estimator=f"{clusters} clusters, {angles} angles, {runs} runs",
            seed=seed,
        )

    return Curve(precision[0], recall[0], score(8, "F_8"), score(1 / 8, "F_1/8"))


def _counts(labels: Tensor, group: Tensor, groups: int, clusters: int) -> Tensor:
    return (group * clusters + labels).bincount(minlength=groups * clusters).view(groups, clusters)


def _without_each(counts: Tensor) -> Tensor:
    """Histograms (1 + groups, clusters) of all rows and without each group."""
    kept = torch.cat([counts.sum(0, keepdim=True), counts.sum(0) - counts]).double()
    return kept / kept.sum(1, keepdim=True)
