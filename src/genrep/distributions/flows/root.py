"""Roots of increasing functions, and fixed points of contractions, with the gradient of the implicit function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 1000  # passes of a contraction: at a rate of 0.97 they reach rounding of float64


def bisect(f: Callable[[Tensor], Tensor], target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x with f(x) = target for an increasing f, elementwise, between `low` and `high`; without gradient."""
    with torch.no_grad():
        for _ in range(80 if target.dtype == torch.float64 else 40):
            middle = (low + high) / 2
            above = f(middle) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2


def with_gradient_of(root: Tensor, value: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    """The root as it is, with dx = (d target - df at fixed x) / slope; `value` is f(root), `slope` f'(root)."""
    rest = target - value
    return root + (rest - rest.detach()) / slope.detach()


def settled(change: Tensor, x: Tensor) -> Tensor:
    """Which rows moved by no more than rounding, (B,)."""
    return (change.abs() <= 16 * torch.finfo(x.dtype).eps * (1 + x.abs())).flatten(1).all(1)


def contraction_root(g: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, int]:
    """x with x + g(x) = z for a g that contracts, by x <- z - g(x) (Behrmann et al., 2019, algorithm 1).

    Returns x with the gradient of the implicit function, and the passes it took. The adjoint (I + J') w = v is solved
    by the same iteration.
    """
    passes = 0
    with torch.no_grad():
        x = z
        for passes in range(1, _MOST + 1):  # noqa: B007
            before, x = x, z - g(x)
            if bool(settled(x - before, x).all()):
                break
    if not torch.is_grad_enabled():
        return x, passes
    point = x.detach().requires_grad_()
    pushed = g(point)
    found = x.detach() + (z - pushed) - (z - pushed).detach()

    def solve(v: Tensor) -> Tensor:
        w = v
        for _ in range(_MOST):
            before, w = w, v - torch.autograd.grad(pushed, point, w, retain_graph=True)[0]
            if bool(settled(w - before, w).all()):
                break
        return w

    if found.requires_grad:
        found.register_hook(solve)
    return found, passes
