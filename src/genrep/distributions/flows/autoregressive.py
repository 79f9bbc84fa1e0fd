"""Masked autoregressive flows, inverted value by value with caches, or by Jacobi iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import Elementwise
from genrep.nets.masked_dense import MaskedDense

InverseName = Literal["walk", "jacobi"]
WALKED = 256  # columns up to which a walk is taken


class Autoregressive(Bijection):
    """z_i = f(x_i; net(x_<i, c)): one pass forward; the Jacobian is triangular (MAF, Papamakarios et al., 2017, eq. 5).

    The inverse up to 256 columns is a walk: D steps, each computing only the hidden units that the last value has
    settled, so that all together cost one pass. Above, it is the fixed point of x <- f^-1(z; net(x, c)): each pass
    settles at least one more value, so D passes are exact, and fewer do once all residuals |f(x) - z| are within
    rounding (Song et al., 2021, algorithm 1). `way` chooses one. `passes` tells the steps or passes that the last
    inverse took. Its gradient is that of the implicit function, solved in the same way.
    """

    def __init__(self, net: MaskedDense, element: Elementwise, way: InverseName | None = None) -> None:
        super().__init__()
        self.net, self.element = net, element
        self.way: InverseName = way or ("walk" if net.shape_out[1] <= WALKED else "jacobi")

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        z, log_slope = self._mapped(x, c)
        return z, log_slope.sum(1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.no_grad():
            x, log_slope = self._walked(z, c) if self.way == "walk" else self._iterated(z, c)
        if not torch.is_grad_enabled():
            return x, log_slope.sum(1)
        x = with_implicit_gradient(lambda x: self._mapped(x, c), x, z, passes=z.shape[1])
        return x, -self._mapped(x, c)[1].sum(1)

    def _mapped(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.element(x, self.net(x, c).to(x.dtype))

    def _walked(self, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """One value after the other."""
        x, log_slope, before = torch.empty_like(z), torch.empty_like(z), None
        with torch.autocast(z.device.type, enabled=False):
            step = self.net.walk(len(z), c)
            for _ in range(z.shape[1]):
                column, parameters = step(before)
                before, log_slope[:, column] = self.element.inverse(z[:, column], parameters.to(z.dtype))
                x[:, column] = before
        self.passes = z.shape[1]
        return x, log_slope

    def _iterated(self, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """The fixed point and log dx/dz; rows that are settled take no part in further passes.

        A step moves x by the residual f(x) - z times dx/dz, so that small steps mean small residuals.
        """
        found, log_slope, rows = z.clone(), torch.zeros_like(z), torch.arange(len(z), device=z.device)
        x = z
        for k in range(z.shape[1]):
            before, self.passes = x, k + 1
            x, slope = self.element.inverse(z, self.net(x, c).to(z.dtype))
            moving = ((x - before).abs() > 16 * torch.finfo(z.dtype).eps * (1 + x.abs())).any(1)
            if k == z.shape[1] - 1:
                moving = torch.zeros_like(moving)
            found[rows[~moving]], log_slope[rows[~moving]] = x[~moving], slope[~moving]
            if not bool(moving.any()):
                break
            rows, x, z, c = rows[moving], x[moving], z[moving], None if c is None else c[moving]
        return found, log_slope


def with_implicit_gradient(
    mapped: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, z: Tensor, passes: int
) -> Tensor:
    """x, a root of mapped(x)[0] = z, with dx = J^-1 (dz - df at fixed x).

    `mapped` gives values and logarithms of their own slopes; J is triangular in some order, so that J' w = g is solved
    in at most `passes` passes; a hook does so by the iteration that the inverse uses.
    """
    point = x.detach().requires_grad_()
    reached, log_slope = mapped(point)
    rest = z - reached
    found = x.detach() + (rest - rest.detach())
    inverse_slope = (-log_slope).exp().detach()

    def solve(g: Tensor) -> Tensor:
        w = g * inverse_slope
        for _ in range(passes):
            residual = g - torch.autograd.grad(reached, point, w, retain_graph=True)[0]
            if bool((residual.abs() <= 16 * torch.finfo(g.dtype).eps * (1 + g.abs())).all()):
                break
            w = w + residual * inverse_slope
        return w

    if found.requires_grad:
        found.register_hook(solve)
    return found


class Inverted(Bijection):
    """The inverse of a bijection as a bijection: an inverse autoregressive flow samples in one pass (IAF, 2016)."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        return self.inner.inverse(x, c)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        return self.inner(z, c)
