"""Radial flows: space expands or contracts around a point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import bounded
from genrep.nets.coupling import zeroed


class Radial(Bijection):
    """z = x + b (x - x0) / (a + r), r = |x - x0| (Rezende & Mohamed, 2015, eq. 14), with b = a (exp(s) - 1).

    log |det| = (D - 1) log(1 + b / (a + r)) + log(1 + a b / (a + r)^2); a = exp(3 tanh(raw / 3)) and s likewise, so
    that both slopes lie between exp(s) and 1. The inverse is the root of a quadratic in r. With a condition, x0, a and
    s are affine functions of it.
    """

    def __init__(self, columns: int, condition: int = 0) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.cat([torch.randn(columns), torch.zeros(2)]))
        self.given = zeroed(nn.Linear(condition, columns + 2, bias=False)) if condition else None
        self.columns = columns

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        centre, a, growth = self._parameters_of(x, c)
        away = x - centre
        r = _norm(away)
        across, along = self._slopes(r, a, growth)
        return centre + away * across[:, None], self._log_det(across, along)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        """r + b r / (a + r) = |z - x0| is r^2 + (a + b - |z - x0|) r - a |z - x0| = 0."""
        centre, a, growth = self._parameters_of(z, c)
        away = z - centre
        reached = _norm(away)
        p = (a * (1 + growth) - reached) / 2
        root = (p.square() + a * reached).sqrt()
        r = torch.where(p > 0, a * reached / (root + p.clamp_min(0)), root - p)
        across, along = self._slopes(r, a, growth)
        return centre + away / across[:, None], -self._log_det(across, along)

    def _parameters_of(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x0 (B, D), then a and exp(s) - 1, (B,)."""
        raw = self.start.expand(len(x), -1)
        if self.given is not None:
            assert c is not None
            raw = raw + self.given(c)
        centre, log_a, s = raw.to(x.dtype).split([self.columns, 1, 1], 1)
        return centre, bounded(log_a[:, 0], 3.0).exp(), torch.expm1(bounded(s[:, 0], 3.0))

    def _slopes(self, r: Tensor, a: Tensor, growth: Tensor) -> tuple[Tensor, Tensor]:
        """Of the map across the radius (D - 1 times) and along it."""
        share = a / (a + r)
        return 1 + growth * share, 1 + growth * share.square()

    def _log_det(self, across: Tensor, along: Tensor) -> Tensor:
        return (self.columns - 1) * across.log() + along.log()


def _norm(away: Tensor) -> Tensor:
    """|away|, with the gradient zero at zero."""
    return (away.square().sum(1) + 1e-30).sqrt()
