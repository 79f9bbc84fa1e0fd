"""Wasserstein distances of one-dimensional clouds, exactly, and of their projections (Bonneel et al., 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.transport.clouds import Clouds, clouds


def wasserstein_1d(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2) -> Tensor:
    """W_p^p = int_0^1 |F_x^-1(q) - F_y^-1(q)|^p dq between the values x (N,) and y (M,), as (); of batches, (B,).

    Exact for any weights and sizes; without the 1/p of Sinkhorn's cost. Raises ValueError for p < 1 and bad clouds.

    >>> wasserstein_1d(torch.tensor([0.0, 1.0]), torch.tensor([2.0]), p=1)
    tensor(1.5000)
    """
    pair = clouds(x.unsqueeze(-1), y.unsqueeze(-1), a, b)
    _check_power(p)
    return pair.result(_quantile_cost(pair.x.mT, pair.y.mT, pair, p, uniform=a is None and b is None).squeeze(1))


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    directions: int | Tensor = 50,
) -> Tensor:
    """The mean of W_p^p over projections on unit directions: clouds (N, D) and (M, D) -> (); batches -> (B,).

    `directions`: how many are drawn, uniformly on the sphere, or the directions themselves, (L, D), normalised here.
    Reference: Kolouri et al., 2019, eq. 10 (SWAE), with p = 2.
    """
    pair = clouds(x, y, a, b)
    _check_power(p)
    theta = _directions(directions, pair.x)
    return pair.result(_projected(pair, theta, p, uniform=a is None and b is None).mean(1))


def max_sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    directions: int | Tensor = 50,
    steps: int = 10,
) -> Tensor:
    """Maximum over unit directions of W_p^p of the projections: clouds (N, D) and (M, D) -> (); batches -> (B,).

    Starts from the best of `directions` and of the difference of the means, then ascends for `steps` along the sphere;
    never below its start. The gradient is that at the direction found (Deshpande et al., 2019).
    """
    pair = clouds(x, y, a, b)
    _check_power(p)
    uniform = a is None and b is None
    fixed = Clouds(pair.x.detach(), pair.y.detach(), pair.a.detach(), pair.b.detach(), pair.batched)
    mean = (fixed.a.unsqueeze(2) * fixed.x).sum(1) - (fixed.b.unsqueeze(2) * fixed.y).sum(1)
    drawn = _directions(directions, fixed.x).expand(len(mean), -1, -1)
    theta = torch.cat([drawn, F.normalize(mean, dim=1).unsqueeze(1)], 1)
    with torch.no_grad():
        value, first = _projected(fixed, theta, p, uniform=uniform).max(1)
    best = theta.gather(1, first.view(-1, 1, 1).expand(-1, 1, theta.shape[2]))
    length = torch.ones_like(value)
    for _ in range(steps):
        with torch.enable_grad():
            at = best.clone().requires_grad_()
            (slope,) = torch.autograd.grad(_projected(fixed, at, p, uniform=uniform).sum(), at)
        moved = F.normalize(best + length.view(-1, 1, 1) * F.normalize(slope, dim=2), dim=2)
        with torch.no_grad():
            trial = _projected(fixed, moved, p, uniform=uniform).squeeze(1)
        better = trial > value
        best, value = torch.where(better.view(-1, 1, 1), moved, best), torch.where(better, trial, value)
        length = torch.where(better, length, length / 2)
    return pair.result(_projected(pair, best, p, uniform=uniform).squeeze(1))


def _check_power(p: float) -> None:
    if not 1 <= p < float("inf"):
        raise ValueError(f"Expected a finite p >= 1, got {p}.")


def _directions(directions: int | Tensor, x: Tensor) -> Tensor:
    """Unit directions, (1, L, D)."""
    if not isinstance(directions, int):
        if directions.ndim != 2 or directions.shape[1] != x.shape[2] or len(directions) < 1:
            raise ValueError(f"Expected directions of shape (L, {x.shape[2]}), got {tuple(directions.shape)}.")
        return F.normalize(directions.to(x), dim=1).unsqueeze(0)
    if directions < 1:
        raise ValueError(f"Expected at least one direction, got {directions}.")
    return F.normalize(torch.randn(directions, x.shape[2], dtype=x.dtype, device=x.device), dim=1).unsqueeze(0)


def _projected(pair: Clouds, theta: Tensor, p: float, *, uniform: bool) -> Tensor:
    """W_p^p along every direction: theta (B or 1, L, D) -> (B, L)."""
    with torch.autocast(pair.x.device.type, enabled=False):
        return _quantile_cost(theta @ pair.x.mT, theta @ pair.y.mT, pair, p, uniform=uniform)


def _quantile_cost(x: Tensor, y: Tensor, pair: Clouds, p: float, *, uniform: bool) -> Tensor:
    """W_p^p of values (B, L, N) and (B, L, M) with the weights of `pair`, (B, L)."""
    if uniform and x.shape[2] == y.shape[2]:
        return _power(x.sort(2).values - y.sort(2).values, p).mean(2)
    x, along_x = x.sort(2)
    y, along_y = y.sort(2)
    upto_x = pair.a.unsqueeze(1).expand_as(x).gather(2, along_x).cumsum(2)
    upto_y = pair.b.unsqueeze(1).expand_as(y).gather(2, along_y).cumsum(2)
    levels = torch.cat([upto_x, upto_y], 2).sort(2).values.clamp_max(1)
    width = levels.diff(dim=2, prepend=torch.zeros_like(levels[..., :1]))
    middle = (levels - width / 2).detach()
    in_x = torch.searchsorted(upto_x.detach().contiguous(), middle).clamp_max(x.shape[2] - 1)
    in_y = torch.searchsorted(upto_y.detach().contiguous(), middle).clamp_max(y.shape[2] - 1)
    return (width * _power(x.gather(2, in_x) - y.gather(2, in_y), p)).sum(2)


def _power(difference: Tensor, p: float) -> Tensor:
    return difference.square() if p == 2 else difference.abs().pow(p)
