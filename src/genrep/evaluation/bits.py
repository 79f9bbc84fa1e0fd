"""Log-likelihoods in bits per dimension, with the Monte-Carlo error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genrep.evaluation.arrays import group_of
from genrep.evaluation.estimate import Estimate, estimate

_GROUPS = 20  # of examples, for paired differences


def bits_per_dimension(
    nats: Tensor, size: int, *, level: float = 0.95, protocol: Mapping[str, Any] | None = None
) -> Estimate:
    """-log p(x) / (D ln 2), averaged over examples; the error is that of the mean over them.

    nats (N,) log-probabilities of whole examples, or (N, K) of K independent estimates each, which are averaged (of a
    bound, as dequantisation draws are; importance weights go through `log_mean_exp` first). size: D = `DataSpec.size`.
    Only masses over the same levels compare; state kind, dequantisation and bit depth in the protocol.

    >>> nats = torch.full((4,), -8 * math.log(256), dtype=torch.float64)  # uniform over 256 levels
    >>> round(bits_per_dimension(nats, 8).value, 12)
    8.0
    """
    if size < 1:
        raise ValueError(f"Expected the number of values in one example, at least 1, got {size}.")
    if nats.ndim not in (1, 2) or len(nats) < 2:
        raise ValueError(f"Expected log-probabilities of shape (N,) or (N, K) with N >= 2, got {tuple(nats.shape)}.")
    each = nats.detach().double().flatten(1).mean(1) if nats.ndim == 2 else nats.detach().double()
    bad = (~each.isfinite()).nonzero()
    if len(bad):
        raise ValueError(f"Expected finite log-probabilities, but example {int(bad[0])} has {float(each[bad[0, 0]])}.")
    bits = -each / (size * math.log(2))
    stated: dict[str, Any] = {"metric": "bits per dimension", "size": size}
    if nats.ndim == 2 and nats.shape[1] > 1:  # of the total error, the part that more draws would remove
        draws = nats.shape[1]
        within = nats.detach().double().var(1) / draws / (size * math.log(2)) ** 2
        stated |= {"draws": draws, "monte_carlo_error": math.sqrt(float(within.mean()) / len(bits))}
    return _mean(bits, protocol, level, stated)


def nats_per_example(nats: Tensor, *, level: float = 0.95, protocol: Mapping[str, Any] | None = None) -> Estimate:
    """-log p(x), averaged over examples (N,): what is stated of densities over real values, lower being better."""
    if nats.ndim != 1 or len(nats) < 2 or not nats.isfinite().all():
        raise ValueError(f"Expected finite log-densities of shape (N,) with N >= 2, got {tuple(nats.shape)}.")
    return _mean(-nats.detach().double(), protocol, level, {"metric": "nats"})


def _mean(each: Tensor, protocol: Mapping[str, Any] | None, level: float, stated: Mapping[str, Any]) -> Estimate:
    """The mean over examples; its jackknife replicates let two models be compared on the same examples."""
    n, replicates = len(each), []
    if n >= 2 * _GROUPS:
        group = group_of(n, _GROUPS, seed=0).to(each.device)
        replicates = [float(each[group != g].mean()) for g in range(_GROUPS)]
    error = float(each.std()) / math.sqrt(n)
    how: dict[str, Any] = {"n": (n, 0), "protocol": protocol, "level": level, "replicates": replicates}
    return estimate(float(each.mean()), error, **how, **stated)


def log_mean_exp(log_weights: Tensor, dim: int = -1) -> Tensor:
    """The log of a mean, log (1/K sum_k w_k): the importance-weighted bound of K draws (Burda et al., 2016, eq. 8).

    >>> float(log_mean_exp(torch.tensor([0.0, 0.0])))
    0.0
    """
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])
