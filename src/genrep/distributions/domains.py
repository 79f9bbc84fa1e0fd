"""Where models compute: levels in [-1, 1] or as logits, tables in standard units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genrep.contracts import DataSpec, Domain


def domain_for(data: DataSpec) -> Domain:
    """The usual choice: levels in [-1, 1], real values in standard units."""
    return Levels(data.levels) if data.levels is not None else Standard(data)


def cell(x: Tensor) -> Tensor:
    """A point drawn uniformly from [x - 1/2, x + 1/2) around an integer; float32 may round it up, so it is clamped."""
    x = x.float()
    return torch.minimum(x - 0.5 + torch.rand_like(x), torch.nextafter(x + 0.5, x))


def as_integer(x: Tensor, levels: int) -> Tensor:
    """The nearest level, as uint8 where 256 levels suffice."""
    return x.round().clamp(0, levels - 1).to(torch.uint8 if levels <= 256 else torch.int64)


class Levels(Domain):
    """K levels evenly over [low, 1]: level k at low + (1 - low) k / (K - 1).

    >>> Levels(3).inward(torch.tensor([[0, 1, 2]]))
    tensor([[-1.,  0.,  1.]])
    """

    def __init__(self, levels: int, low: float = -1.0) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"Expected at least 2 levels, got {levels}.")
        self.levels, self.low, self.steps = levels, low, (levels - 1) / (1 - low)

    def inward(self, x: Tensor) -> Tensor:
        return x if x.is_floating_point() else x.float() / self.steps + self.low

    def outward(self, x: Tensor) -> Tensor:
        return as_integer((x - self.low) * self.steps, self.levels)

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.is_floating_point():
            return x, _constant(x, 0.0)
        return cell(x) / self.steps + self.low, _constant(x, -x[0].numel() * math.log(self.steps))


class Logit(Domain):
    """u = (k + 1/2) / K in (0, 1), then logit(s), s = a + (1 - 2 a) u: unbounded, as the base of a flow is.

    log |d inside / dx| = sum log(1 - 2 a) - log K - log s - log(1 - s) (RealNVP, Dinh et al., 2017, section 4.1; there
    a = 0.05).
    """

    def __init__(self, levels: int, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"Expected 0 < alpha < 0.5, got {alpha}.")
        self.levels, self.alpha = levels, alpha

    def _squeezed(self, level: Tensor) -> Tensor:
        return self.alpha + (1 - 2 * self.alpha) * (level + 0.5) / self.levels

    def inward(self, x: Tensor) -> Tensor:
        return x if x.is_floating_point() else torch.logit(self._squeezed(x.float()))

    def outward(self, x: Tensor) -> Tensor:
        u = (x.sigmoid() - self.alpha) / (1 - 2 * self.alpha)
        return as_integer(u * self.levels - 0.5, self.levels)

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.is_floating_point():
            return x, _constant(x, 0.0)
        return self.placed(cell(x))

    def placed(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """A point of a cell (levels as floats, plus less than a half) inside, and log |d inside / d point|, (B,)."""
        s = self._squeezed(point)
        slope = math.log(1 - 2 * self.alpha) - math.log(self.levels) - s.log() - (-s).log1p()
        return torch.logit(s), slope.flatten(1).sum(1)


class Centres(Logit):
    """The same without noise: `continuous` is the centre of the cell, whose density is not a mass."""

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().continuous(x) if x.is_floating_point() else self.placed(x.float())


class Angles(Domain):
    """Columns of angles in radians, turned into [-pi, pi)."""

    def inward(self, x: Tensor) -> Tensor:
        return torch.remainder(x + math.pi, 2 * math.pi) - math.pi

    def outward(self, x: Tensor) -> Tensor:
        return self.inward(x)

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inward(x), _constant(x, 0.0)


class Standard(Domain):
    """Real values in standard units, (x - mean) / std, per column or channel of the training split."""

    mean: Tensor
    std: Tensor

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        per_channel = (-1, *[1] * (len(data.shape) - 1))
        mean, std = data.mean or (0.0,) * data.shape[0], data.std or (1.0,) * data.shape[0]
        self.register_buffer("mean", torch.tensor(mean).view(per_channel), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(per_channel), persistent=False)

    def inward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def outward(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inward(x), _constant(x, -float(self.std.log().expand(x.shape[1:]).sum()))


def _constant(x: Tensor, value: float) -> Tensor:
    return torch.full((len(x),), value, device=x.device)
