"""Neighbourhoods and clusters of a representation: trustworthiness, clustering accuracy, mutual information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genrep.evaluation.arrays import Array, features, group_of, square_distances
from genrep.evaluation.estimate import Estimate, estimate, jackknifed, proportion


def trustworthiness(
    x: Array, embedding: Array, *, k: int = 5, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> Estimate:
    """Are neighbours in the embedding neighbours in the data?

        1 - 2 / (N k (2 N - 3 k - 1)) sum_i sum_j max(0, r(i, j) - k).

    x (N, d), embedding (N, e); j runs over the k nearest of i in the embedding, r(i, j) is its rank in the data. An
    unrelated embedding has about 0.5, the best 1. The error takes rows as independent.

    Reference: Venna & Kaski (2001), eq. 1.
    """
    a, b = features(x, "x"), features(embedding, "embedding")
    n = len(a)
    if len(b) != n:
        raise ValueError(f"Expected one embedded row for each of {n} rows, got {len(b)}.")
    if not 1 <= k < n / 2:
        raise ValueError(f"Expected 1 <= k < N / 2 = {n / 2:g}, got {k}.")
    a, b = a - a.mean(0), b - b.mean(0)
    penalty = torch.empty(n, dtype=torch.float64)
    for (rows, near), (_, far) in zip(square_distances(b, b), square_distances(a, a), strict=True):
        here = torch.arange(len(near), device=a.device)
        near[here, here + rows.start], far[here, here + rows.start] = (
            torch.inf,
            -torch.inf,
        )  # itself: rank 0 in the data
        order = far.argsort(1)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=a.device).expand_as(order))
        neighbours = near.topk(k, largest=False).indices.to(a.device)
        penalty[rows] = (rank.gather(1, neighbours) - k).clamp(min=0).sum(1).double().cpu()
    each = 1 - penalty * 2 / (k * (2 * n - 3 * k - 1))
    return estimate(
        float(each.mean()),
        float(each.std()) / n**0.5,
        n=(n, 0),
        protocol=protocol,
        level=level,
        metric="trustworthiness",
        estimator=f"k = {k}",
    )


def contingency(labels: Tensor, clusters: Tensor) -> Tensor:
    """How many rows have label i and cluster j, (labels, clusters); both (N,) integers from 0."""
    for name, t in (("labels", labels), ("clusters", clusters)):
        if t.ndim != 1 or t.is_floating_point() or len(t) < 2 or t.min() < 0:
            raise ValueError(
                f"Expected {name} to be (N,) integers of at least zero, N >= 2, got {tuple(t.shape)} {t.dtype}."
            )
    if len(labels) != len(clusters):
        raise ValueError(f"Expected one cluster for each label, got {len(clusters)} for {len(labels)}.")
    rows, columns = int(labels.max()) + 1, int(clusters.max()) + 1
    return (labels.long() * columns + clusters.long()).bincount(minlength=rows * columns).view(rows, columns)


def clustering_accuracy(
    labels: Tensor, clusters: Tensor, *, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> Estimate:
    """Share of rows whose cluster is the one matched to their label, under the best one-to-one matching.

    >>> clustering_accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0])).value
    1.0
    """
    table = contingency(labels, clusters).cpu().numpy()
    i, j = linear_sum_assignment(table, maximize=True)
    n, share = len(labels), float(table[i, j].sum()) / len(labels)
    return proportion(share, n, n=(n, 0), protocol=protocol, level=level, metric="clustering accuracy")


def normalised_mutual_information(
    labels: Tensor,
    clusters: Tensor,
    *,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """2 I(label; cluster) / (H(label) + H(cluster)), 0 to 1; biased upwards when clusters are many and rows few."""
    table = contingency(labels, clusters)
    group = group_of(len(labels), groups, seed).to(labels.device)
    size = int(labels.max()) + 1, int(clusters.max()) + 1
    replicates = []
    for g in range(groups):
        part = torch.zeros(size, dtype=torch.long, device=labels.device)
        found = contingency(labels[group == g], clusters[group == g])
        part[: found.shape[0], : found.shape[1]] = found
        replicates.append(_nmi((table - part).cpu().numpy()))
    return jackknifed(
        _nmi(table.cpu().numpy()),
        replicates,
        n=(len(labels), 0),
        protocol=protocol,
        level=level,
        metric="normalised mutual information",
        seed=seed,
    )


def _nmi(table: np.ndarray) -> float:
    p = table / table.sum()
    both = entropy(p.sum(1)) + entropy(p.sum(0))
    return 2 * (both - entropy(p.ravel())) / both if both > 0 else 1.0  # one label, one cluster: they agree


def entropy(p: np.ndarray) -> float:
    """Entropy of a probability vector, nats."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
