"""Latents in standard units, for a prior that is a model of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.collective import averaged
from genrep.contracts import Domain
from genrep.nets.codebook import Codebook

_RATE = 0.01  # of the moving averages, once the plain average of the first batches has settled


class StandardUnits(Domain):
    """inward(z) = (z - mean) / std per channel of z (B, D, *grid); both are moving averages of what it observed.

    With a `codebook`, outward goes on to the nearest entries, so that samples are what the decoder knows.
    """

    mean: Tensor
    square: Tensor
    passes: Tensor

    def __init__(self, channels: int, codebook: Codebook | None = None) -> None:
        super().__init__()
        self.codebook = codebook
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.ones(channels))
        self.register_buffer("passes", torch.zeros(()))

    @torch.no_grad()
    def observe(self, z: Tensor) -> None:
        """In train mode, one step of the averages; processes that train together agree."""
        if not self.training:
            return
        values = z.detach().movedim(1, -1).flatten(0, -2)
        moments = averaged(torch.stack([values.mean(0), values.square().mean(0)]))
        self.passes += 1
        rate = (1 / self.passes).clamp_min(_RATE)
        self.mean.lerp_(moments[0], rate)
        self.square.lerp_(moments[1], rate)

    def _units(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (z.ndim - 2))
        std = (self.square - self.mean.square()).clamp_min(1e-12).sqrt()  # a constant channel has nothing to scale
        return self.mean.view(shape), std.view(shape)

    def inward(self, x: Tensor) -> Tensor:
        mean, std = self._units(x)
        return (x - mean) / std

    def outward(self, x: Tensor) -> Tensor:
        mean, std = self._units(x)
        z = x * std + mean
        return z if self.codebook is None else self.codebook.look_up(self.codebook.codes(z))

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, std = self._units(x)
        return self.inward(x), -std.log().expand(x.shape[1:]).sum().expand(len(x))
