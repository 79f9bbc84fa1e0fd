"""Clouds of weighted points: what every divergence here compares, checked once.

x (N, D) and y (M, D), or batches (B, N, D) and (B, M, D); weights (N,) and (M,), or (B, N) and (B, M), default uniform.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Clouds(NamedTuple):
    """Two batches of weighted clouds, in float32 or float64; weights sum to one."""

    x: Tensor  # (B, N, D)
    y: Tensor  # (B, M, D)
    a: Tensor  # (B, N)
    b: Tensor  # (B, M)
    batched: bool

    def result(self, value: Tensor) -> Tensor:
        """(B, ...) -> the shape the caller's clouds imply: (...) for a single pair."""
        return value if self.batched else value.squeeze(0)


def clouds(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Clouds:
    """Check and normalise two clouds: batched, at least float32, weights summing to one.

    Raises ValueError for empty clouds, unequal widths or batches, values that are not finite, and weights that are
    negative, of the wrong shape, or all zero.

    >>> clouds(torch.zeros(3, 2), torch.ones(4, 2)).b
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if x.ndim not in (2, 3) or x.ndim != y.ndim:
        raise ValueError(f"Expected clouds (N, D) and (M, D), or (B, N, D) and (B, M, D), got {_shapes(x, y)}.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"Expected points of one width, got {x.shape[-1]} and {y.shape[-1]} in {_shapes(x, y)}.")
    if 0 in x.shape or 0 in y.shape:
        raise ValueError(f"Expected at least one point and one dimension, got {_shapes(x, y)}.")
    if x.ndim == 3 and len(x) != len(y):
        raise ValueError(f"Expected as many clouds on both sides, got {len(x)} and {len(y)}.")
    if x.device != y.device:
        raise ValueError(f"Expected both clouds on one device, got {x.device} and {y.device}.")
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    if kind.is_complex:
        raise ValueError(f"Expected real points, got {x.dtype} and {y.dtype}.")
    wx, wy = _weights(a, x, kind, "x"), _weights(b, y, kind, "y")
    batched, x, y = x.ndim == 3, x.to(kind), y.to(kind)
    for name, points in (("x", x), ("y", y)):
        if not bool(points.detach().isfinite().all()):
            raise ValueError(f"Expected finite points, got NaN or infinity in {name}.")
    x, y, wx, wy = (x, y, wx, wy) if batched else (x[None], y[None], wx[None], wy[None])
    return Clouds(x, y, wx, wy, batched)


def _shapes(x: Tensor, y: Tensor) -> str:
    return f"{tuple(x.shape)} and {tuple(y.shape)}"


def _weights(w: Tensor | None, points: Tensor, kind: torch.dtype, name: str) -> Tensor:
    shape = points.shape[:-1]
    if w is None:
        return torch.full(shape, 1 / shape[-1], dtype=kind, device=points.device)
    if w.shape != shape:
        raise ValueError(f"Expected weights of {name} of shape {tuple(shape)}, got {tuple(w.shape)}.")
    w = w.to(kind)
    total = w.sum(-1, keepdim=True)
    if not bool((w.detach() >= 0).all() & total.detach().isfinite().all()):  # NaN fails the comparison too
        raise ValueError(f"Expected finite weights >= 0, got {w.detach().min():g} as the least of {name}.")
    if not bool((total.detach() > 0).all()):
        raise ValueError(f"Expected some positive weight in every cloud, got only zeros in {name}.")
    return w / total


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, (B, N, D), (B, M, D) -> (B, N, M), by one matrix product around the common mean."""
    centre = (x.mean(1, keepdim=True) + y.mean(1, keepdim=True)).detach() / 2
    x, y = x - centre, y - centre
    squares = x.square().sum(-1).unsqueeze(2) + y.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(squares, x, y.mT, alpha=-2).clamp_min(0)
