"""Rational-quadratic splines, with linear tails or on a circle."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.distributions.flows.elementwise import Elementwise, bounded


class Bin(NamedTuple):
    """The bin of each value: its lower corner, size and the slopes at both ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor  # of the chord, height / width
    left: Tensor
    right: Tensor


class Spline(Elementwise):
    """A monotone rational-quadratic spline of K bins on [-b, b]; the identity outside (Durkan et al., 2019, eqs. 4-8).

    Of the 3 K - 1 parameters, K give widths and K heights (softmax, each at least 1e-3 of the box), K - 1 the slopes at
    the inner knots, exp(3 tanh(raw / 3)); the slope at the ends is one. No parameter makes it anything but finite and
    increasing, and zeros make it the identity.
    """

    least = 1e-3

    def __init__(self, bins: int = 8, box: float = 5.0) -> None:
        super().__init__()
        if not 2 <= bins <= 100:
            raise ValueError(f"Expected 2 to 100 bins, got {bins}.")
        self.bins, self.box, self.size = bins, box, 3 * bins - 1

    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.box, self.box)
        b = self._bin(inside, p, by_height=False)
        theta = (inside - b.x) / b.width
        outside = x.abs() >= self.box
        return torch.where(outside, x, b.y + b.height * _rise(b, theta)), torch.where(outside, 0, _log_slope(b, theta))

    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """The root of eqs. 6-8 loses digits where slopes differ much; a Newton step restores them, and the gradient."""
        inside = z.clamp(-self.box, self.box)
        b = self._bin(inside, p, by_height=True)
        rise = (inside - b.y) / b.height
        with torch.no_grad():
            theta = _root(b, rise)
            steepness = _log_slope(b, theta).exp() / b.slope
        theta = theta - (_rise(b, theta) - rise) / steepness
        outside = z.abs() >= self.box
        return torch.where(outside, z, b.x + b.width * theta), torch.where(outside, 0, -_log_slope(b, theta))

    def _bin(self, value: Tensor, p: Tensor, *, by_height: bool) -> Bin:
        """The bin that holds each value (B, *event) between knots in x, or in y; p is (B, size, *event)."""
        p = p.movedim(1, -1)
        knots = self._knots(p[..., : 2 * self.bins].unflatten(-1, (2, self.bins)))
        slopes = self._slopes(bounded(p[..., 2 * self.bins :], 3.0).exp())
        inner = knots[..., int(by_height), 1:-1].contiguous()
        low = torch.searchsorted(inner, value.contiguous()[..., None], right=True)
        ends = torch.cat([low, low + 1], -1)
        corners = knots.gather(-1, ends.unsqueeze(-2).expand(*low.shape[:-1], 2, 2))
        (x, right), (y, top) = (corner.unbind(-1) for corner in corners.unbind(-2))
        width, height = right - x, top - y
        return Bin(x, y, width, height, height / width, *slopes.gather(-1, ends).unbind(-1))

    def _slopes(self, inner: Tensor) -> Tensor:
        """Of all K + 1 knots."""
        return F.pad(inner, (1, 1), value=1.0)

    def _knots(self, raw: Tensor) -> Tensor:
        """(..., K) -> (..., K + 1), knot j at -b + 2 b [j least + (1 - K least) sum_i<=j softmax(raw)_i], j = 0..K."""
        reached = raw.softmax(-1)[..., :-1].cumsum(-1)
        lowest = torch.arange(1, self.bins, dtype=raw.dtype, device=raw.device) * (2 * self.box * self.least) - self.box
        inner = torch.add(lowest, reached, alpha=2 * self.box * (1 - self.least * self.bins))
        end = inner.new_full((), self.box).expand(*inner.shape[:-1], 1)
        return torch.cat([-end, inner, end], -1)


class CircularSpline(Elementwise):
    """A monotone spline of the circle [-b, b) onto itself, turned by a shift (Rezende et al., 2020).

    Of the 3 K + 1 parameters, K give widths, K heights, K the slopes, the same at both ends, and one the shift. On the
    whole line it goes on with f(x + 2 b) = f(x) + 2 b, so that x and x + 2 b remain the same point of the circle.
    """

    def __init__(self, bins: int = 8, box: float = math.pi) -> None:
        super().__init__()
        self.inner = _Periodic(bins, box)
        self.box, self.size = box, 3 * bins + 1

    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        turns, x = self._unwound(x)
        z, log_slope = self.inner(x, p[:, :-1])
        return z + turns + p[:, -1], log_slope

    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        turns, z = self._unwound(z - p[:, -1])
        x, log_slope = self.inner.inverse(z, p[:, :-1])
        return x + turns, log_slope

    def _unwound(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whole turns, as a length, and the rest in [-b, b)."""
        turns = 2 * self.box * torch.floor((x.detach() + self.box) / (2 * self.box))
        return turns, x - turns


class _Periodic(Spline):
    """On [-b, b] with the same slope at both ends."""

    def _slopes(self, inner: Tensor) -> Tensor:
        return torch.cat([inner, inner[..., :1]], -1)


def _rise(b: Bin, theta: Tensor) -> Tensor:
    """How much of the bin's height is reached at a share theta of its width."""
    spread = theta * (1 - theta)
    return (b.slope * theta.square() + b.left * spread) / (b.slope + (b.left + b.right - 2 * b.slope) * spread)


def _root(b: Bin, rise: Tensor) -> Tensor:
    """theta with that rise, from a theta^2 + b theta + c = 0; all divided by the height."""
    bend = (b.left + b.right - 2 * b.slope) * rise
    quadratic, minus_linear, constant = b.slope - b.left + bend, bend - b.left, -b.slope * rise
    discriminant = (minus_linear.square() - 4 * quadratic * constant).clamp_min(0)
    return (2 * constant / (minus_linear - discriminant.sqrt())).clamp(0, 1)


def _log_slope(b: Bin, theta: Tensor) -> Tensor:
    spread = theta * (1 - theta)
    above = b.right * theta.square() + 2 * b.slope * spread + b.left * (1 - theta).square()
    below = b.slope + (b.left + b.right - 2 * b.slope) * spread
    return 2 * b.slope.log() + above.log() - 2 * below.log()
