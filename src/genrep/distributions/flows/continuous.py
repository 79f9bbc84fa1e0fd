"""Continuous flows: a map by an ordinary differential equation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genrep.distributions.adaptive import Field, adaptive, replay
from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.residual import EXACT_UP_TO, jacobian
from genrep.nets.lipschitz import LipschitzNet

GradientName = Literal["stored", "recomputed"]


class Continuous(Bijection):
    """z = x(1) with dx/dt = f(x, t; c), x(0) = x; log |det| = integral of tr df/dx dt (Grathwohl et al., 2019).

    Both are solved by adaptive steps of order 5, each example by its own, to `tolerance` (error over 1 + |value|, per
    step), with no less than rounding allows. The trace is estimated in train mode by v'(df/dx)v, one v of random signs
    for a whole path; in eval mode it is exact up to 64 values. Lip(f) is bounded by that of the network, so that no
    parameter makes the equation stiff without end.

    `gradient`: recomputed keeps only the state before each step and makes the step anew in the backward pass; stored
    keeps everything. Both give the exact gradient of the steps taken.
    """

    def __init__(
        self, net: LipschitzNet, size: int, tolerance: float = 1e-5, gradient: GradientName = "recomputed"
    ) -> None:
        super().__init__()
        if not 0 < tolerance < 1:
            raise ValueError(f"Expected a tolerance in (0, 1), got {tolerance}.")
        self.net, self.exact, self.tolerance, self.gradient = net, size <= EXACT_UP_TO, tolerance, gradient

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        return self._solved(x, c, backwards=False)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        return self._solved(z, c, backwards=True)

    def _solved(self, x: Tensor, c: Tensor | None, *, backwards: bool) -> Mapped:
        with torch.autocast(x.device.type, enabled=False):
            field = self._field(x, c, backwards=backwards)
            start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)
            with torch.no_grad():
                end, sizes, self.passes = adaptive(field, start, self.tolerance)
            if torch.is_grad_enabled():
                end = replay(field, start, sizes, recompute=self.gradient == "recomputed")
            return end[:, :-1].reshape(x.shape), end[:, -1]

    def _field(self, x: Tensor, c: Tensor | None, *, backwards: bool) -> Field:
        """Of x beside its log-determinant, (B, D + 1)."""
        net, sign = self.net.bind(x), -1.0 if backwards else 1.0
        whole = self.exact and not self.training
        v = None if whole else torch.randint_like(x, 2) * 2 - 1

        def field(state: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            outer, at = torch.is_grad_enabled(), state[:, :-1].reshape(-1, *x.shape[1:])
            with torch.enable_grad():
                at = at if outer and at.requires_grad else at.detach().requires_grad_()
                slope = net(at, _context(1 - t if backwards else t, None if c is None else c[rows]))
                trace = _trace(slope, at, None if v is None else v[rows], create_graph=outer)
            found = sign * torch.cat([slope.flatten(1), trace[:, None]], 1)
            return found if outer else found.detach()

        return field


def _context(t: Tensor, c: Tensor | None) -> Tensor:
    """Time, and what is known of x: (B, 3 + C)."""
    time = torch.stack([t, torch.cos(torch.pi * t), torch.cos(2 * torch.pi * t)], 1)
    return time if c is None else torch.cat([time, c.to(t.dtype)], 1)


def _trace(slope: Tensor, at: Tensor, v: Tensor | None, *, create_graph: bool) -> Tensor:
    if v is None:
        return jacobian(slope, at, create_graph=create_graph).diagonal(dim1=1, dim2=2).sum(1)
    (product,) = torch.autograd.grad(slope, at, v, create_graph=create_graph, retain_graph=True)
    return (product * v).flatten(1).sum(1)


TIME = 3  # width of what the network knows of time
