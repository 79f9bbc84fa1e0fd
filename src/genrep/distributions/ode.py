"""Ordinary differential equations dx/dt = f(x, t) with the change of log-density along their paths.

log p(x(a)) = log p(x(b)) + integral from a to b of div f dt (Chen et al., 2018, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]  # x (B, *x), t () -> dx/dt (B, *x)
MethodName = Literal["euler", "midpoint", "heun", "rk4"]
TraceName = Literal["hutchinson", "exact"]

# explicit Runge-Kutta methods: rows of the stages before each stage, then the weights of all
_TABLEAUS: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": (((),), (1.0,)),
    "midpoint": (((), (0.5,)), (0.0, 1.0)),
    "heun": (((), (1.0,)), (0.5, 0.5)),
    "rk4": (((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def stages(method: MethodName) -> int:
    """Evaluations of the field in one step; a ValueError for an unknown method."""
    if method not in _TABLEAUS:
        raise ValueError(f"Unknown method {method!r}. Valid: {', '.join(get_args(MethodName))}.")
    return len(_TABLEAUS[method][1])


def solve(field: Field, x: Tensor, grid: Tensor, method: MethodName = "rk4") -> Tensor:
    """x at the last time of `grid`, from x at its first, with one step between neighbours."""
    rows, weights = _TABLEAUS[method]
    for a, b in pairwise(grid):
        h, slopes = b - a, []
        for row in rows:
            at = x + h * sum((w * s for w, s in zip(row, slopes, strict=True)), torch.zeros_like(x))
            slopes.append(field(at, a + h * sum(row)))
        x = x + h * sum((w * s for w, s in zip(weights, slopes, strict=True)), torch.zeros_like(x))
    return x


def solve_with_divergence(
    field: Field, x: Tensor, grid: Tensor, *, method: MethodName = "rk4", trace: TraceName = "hutchinson"
) -> tuple[Tensor, Tensor]:
    """x at the end and the integral of div f along the path, (B,), without gradient.

    exact: one backward pass for each dimension. hutchinson: v' (df/dx) v with one v of random signs for the whole path,
    an unbiased estimate (Grathwohl et al., 2019, eq. 7).
    """
    if trace not in get_args(TraceName):
        raise ValueError(f"Unknown trace {trace!r}. Valid: {', '.join(get_args(TraceName))}.")
    sign = torch.randint_like(x, 2) * 2 - 1

    def divergence(slope: Tensor, at: Tensor) -> Tensor:
        if trace == "hutchinson":
            (product,) = torch.autograd.grad((slope * sign).sum(), at)
            return (product * sign).flatten(1).sum(1)
        rows, size = slope.flatten(1).sum(0), at[0].numel()
        found = [torch.autograd.grad(rows[i], at, retain_graph=i + 1 < size)[0].flatten(1)[:, i] for i in range(size)]
        return torch.stack(found).sum(0)

    def joint(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            at = state[:, :-1].reshape(x.shape).detach().requires_grad_()
            slope = field(at, t)
            change = divergence(slope, at)
        return torch.cat([slope.detach().flatten(1), change[:, None]], 1)

    with torch.no_grad():
        end = solve(joint, torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1), grid, method)
    return end[:, :-1].reshape(x.shape), end[:, -1]
