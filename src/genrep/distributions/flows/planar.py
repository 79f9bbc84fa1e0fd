"""Planar flows: a bend along one direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.root import bisect, with_gradient_of
from genrep.nets.coupling import zeroed

FLOOR = -0.999  # of w'u; at -1 the map is flat where tanh is steepest
NEUTRAL = math.log(math.expm1(-FLOOR))  # softplus(NEUTRAL) + FLOOR = 0: a u orthogonal to w stays as it is


class Planar(Bijection):
    """z = x + u tanh(w'x + b) with u bent so that w'u >= -0.999 (Rezende & Mohamed, 2015, eqs. 10-12, appendix A.1).

    log |det| = log(1 + w'u (1 - tanh(w'x + b)^2)). The inverse needs one number, a = w'x, the root of the increasing
    function a + w'u tanh(a + b) - w'z, which is found by bisection; then x = z - u tanh(a + b). With a condition, w, u
    and b are affine functions of it.
    """

    def __init__(self, columns: int, condition: int = 0) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.cat([torch.randn(columns) / columns**0.5, torch.zeros(columns + 1)]))
        self.given = zeroed(nn.Linear(condition, 2 * columns + 1, bias=False)) if condition else None
        self.columns = columns

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        w, u, wu, b = self._parameters_of(x, c)
        a = (w * x).sum(1) + b
        return x + u * torch.tanh(a)[:, None], torch.log1p(wu * tanh_slope(a))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        w, u, wu, b = self._parameters_of(z, c)
        a = self._along((w * z).sum(1), wu, b) + b
        return z - u * torch.tanh(a)[:, None], -torch.log1p(wu * tanh_slope(a))

    def _parameters_of(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w and u, (B, D), then w'u and b, (B,)."""
        raw = self.start.expand(len(x), -1)
        if self.given is not None:
            assert c is not None
            raw = raw + self.given(c)
        w, u, b = raw.to(x.dtype).split([self.columns, self.columns, 1], 1)
        product, square = (w * u).sum(1), w.square().sum(1) + 1e-30
        wu = F.softplus(product + NEUTRAL) + FLOOR
        u = u + ((wu - product) / square)[:, None] * w
        return w, u, wu, b[:, 0]

    def _along(self, target: Tensor, wu: Tensor, b: Tensor) -> Tensor:
        """The root a of a + w'u tanh(a + b) = target."""
        f = lambda a: a + wu * torch.tanh(a + b)  # noqa: E731
        a = bisect(f, target, target - wu.abs(), target + wu.abs())
        return with_gradient_of(a, f(a), target, 1 + wu * tanh_slope(a + b))


def tanh_slope(a: Tensor) -> Tensor:
    """1 - tanh(a)^2 without the cancellation, which a large w'u would magnify."""
    e = torch.exp(-2 * a.abs())
    return 4 * e / (1 + e).square()
