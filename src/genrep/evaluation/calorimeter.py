"""Channels of a calorimeter with photomultipliers, and how far two samples of showers are apart in them.

The showers are images of deposited energy with an even side (44 x 44 for the Zero Degree Calorimeter). Fibres alternate
like a chessboard: channel 5 reads those with odd (row + column); channels 1 to 4 read the others, a quadrant each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.evaluation.arrays import Array, group_of, pair
from genrep.evaluation.estimate import Estimate, jackknifed


def channels(energy: Tensor) -> Tensor:
    """Sums over the five channels, (B, 5), of energies (B, H, W) or (B, 1, H, W), with the logarithm undone.

    >>> channels(torch.ones(1, 44, 44)).tolist()
    [[242.0, 242.0, 242.0, 242.0, 968.0]]
    """
    image = energy[:, 0] if energy.ndim == 4 and energy.shape[1] == 1 else energy
    if image.ndim != 3 or image.shape[1] % 2 or image.shape[2] % 2:
        raise ValueError(f"Expected energies of shape (B, H, W) with even sides, got {tuple(energy.shape)}.")
    bad = (~(image >= 0)).flatten(1).any(1).nonzero()
    if len(bad):
        raise ValueError(
            f"Expected energies of at least zero, with the logarithm undone; image {int(bad[0])} has others."
        )
    h, w = image.shape[1:]
    odd = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == 1
    odd = odd.to(image.device)
    even = image.double().masked_fill(odd, 0)
    halves = [slice(0, h // 2), slice(h // 2, None)], [slice(0, w // 2), slice(w // 2, None)]
    quadrants = [even[:, r, c].sum((1, 2)) for r in halves[0] for c in halves[1]]
    return torch.stack([*quadrants, image.double().masked_fill(~odd, 0).sum((1, 2))], 1)


def wasserstein_1d(a: Tensor, b: Tensor) -> Tensor:
    """W1 between empirical distributions, per column: integral |F_a^{-1} - F_b^{-1}|; a (N, C), b (M, C) -> (C,).

    >>> wasserstein_1d(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])).tolist()
    [2.5]
    """
    n, m = len(a), len(b)
    edges = torch.cat([torch.arange(1, size + 1, dtype=torch.float64) / size for size in (n, m)]).unique()
    widths = edges.diff(prepend=edges.new_zeros(1))
    middle = edges - widths / 2
    level_a, level_b = ((middle * size).long().clamp(max=size - 1).to(a.device) for size in (n, m))
    gap = a.double().sort(0).values[level_a] - b.double().sort(0).values[level_b]
    return (gap.abs() * widths.to(a.device)[:, None]).sum(0)


class ChannelDistance(NamedTuple):
    per_channel: tuple[Estimate, ...]
    pooled: Estimate


def channel_wasserstein(
    *,
    real: Array,
    generated: Array,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> ChannelDistance:
    """W1 of every channel, and of all channels' values pooled into one distribution, as papers print it.

    real (N, C), generated (M, C) channel sums. Equal distributions have a positive expectation at finite N.
    """
    x, y = pair(real, generated)
    gx, gy = group_of(len(x), groups, seed).to(x.device), group_of(len(y), groups, seed + 1).to(x.device)

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([wasserstein_1d(a, b), wasserstein_1d(a.reshape(-1, 1), b.reshape(-1, 1))])

    value = distances(x, y).tolist()
    replicates = torch.stack([distances(x[gx != g], y[gy != g]) for g in range(groups)]).T.tolist()
    how: dict[str, Any] = {"n": (len(x), len(y)), "protocol": protocol, "level": level, "seed": seed}
    found = [
        jackknifed(v, r, **how, metric=f"wasserstein {name}", estimator=f"plug-in, jackknife {groups}")
        for v, r, name in zip(
            value, replicates, [*(f"channel {c + 1}" for c in range(x.shape[1])), "pooled"], strict=True
        )
    ]
    return ChannelDistance(tuple(found[:-1]), found[-1])


def channel_error(
    *,
    real: Array,
    generated: Array,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Mean absolute error over channels between a shower and the one generated from the same condition, in order.

    real and generated (N, C) channel sums; row i of both has the same condition.
    """
    x, y = pair(real, generated)
    if len(x) != len(y):
        raise ValueError(f"Expected a generated shower for every real one, got {len(y)} for {len(x)}.")
    error = (x.double() - y.double()).abs().mean(1)
    group = group_of(len(error), groups, seed).to(error.device)
    replicates = [float(error[group != g].mean()) for g in range(groups)]
    how: dict[str, Any] = {"n": (len(x), len(y)), "protocol": protocol, "level": level, "seed": seed}
    return jackknifed(
        float(error.mean()), replicates, **how, metric="channel error", estimator=f"mean, jackknife {groups}"
    )
