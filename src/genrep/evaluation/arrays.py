"""Checked feature arrays and their division into groups; squared distances by blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray  # (N, d)


def features(x: Array, name: str = "features", least: int = 2) -> Tensor:
    """Returns x as a floating (N, d) tensor of finite numbers; a ValueError names the array and the first bad row."""
    x = torch.as_tensor(x).detach()
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"Expected {name} of shape (N, d), got {tuple(x.shape)}; flatten what has more dimensions.")
    if len(x) < least:
        raise ValueError(f"Expected at least {least} rows in {name}, got {len(x)}.")
    x = (
        x
        if x.dtype in (torch.float32, torch.float64)
        else x.to(torch.float64 if not x.is_floating_point() else torch.float32)
    )
    # A row's sum is finite unless an entry is not (or the sum overflows: such features are refused as well).
    bad = (~x.sum(1).isfinite()).nonzero()
    if len(bad):
        raise ValueError(f"Expected finite {name}, but row {int(bad[0])} is not ({len(bad)} such rows).")
    return x


def pair(real: Array, generated: Array, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both arrays checked, of one width, in one dtype (the wider) and on one device."""
    a, b = features(real, "real", least), features(generated, "generated", least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"Expected equal widths, got real {tuple(a.shape)} and generated {tuple(b.shape)}; use one extractor."
        )
    kind = torch.promote_types(a.dtype, b.dtype)
    return a.to(kind), b.to(a.device, kind)


def group_of(n: int, groups: int, seed: int) -> Tensor:
    """A group 0..groups-1 for each of n rows, at random, sizes equal within one.

    >>> group_of(5, 2, seed=0).bincount().tolist()
    [3, 2]
    """
    if n < 2 * groups:
        raise ValueError(
            f"Expected at least {2 * groups} rows for {groups} jackknife groups, got {n}; pass fewer groups."
        )
    return torch.arange(n)[torch.randperm(n, generator=torch.Generator().manual_seed(seed))] % groups


def centred(*arrays: Tensor) -> tuple[Tensor, ...]:
    """Arrays moved by the mean of the first: distances stay, but cancel less in float32."""
    mean = arrays[0].mean(0)
    return tuple(x - mean for x in arrays)


def square_distances(a: Tensor, b: Tensor, block: int = 1024) -> Iterator[tuple[slice, Tensor]]:
    """|a_i - b_j|^2 for `block` rows of a at a time, (block, M); the buffer is reused by the next block."""
    norm_a, norm_b = a.square().sum(1), b.square().sum(1)
    buffer = a.new_empty(min(block, len(a)), len(b))
    for start in range(0, len(a), block):
        rows = slice(start, min(start + block, len(a)))
        out = buffer[: rows.stop - start]
        torch.mm(a[rows], b.T, out=out)
        yield rows, out.mul_(-2).add_(norm_a[rows, None]).add_(norm_b).clamp_(min=0)
