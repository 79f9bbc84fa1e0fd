"""Denoisers around denoisers that steer sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.contracts import Conditional
from genrep.distributions.samplers import Denoised


class ClassifierFree(Conditional):
    """x_0 = x_0(unknown) + scale (x_0(y) - x_0(unknown)); scale 1 is the plain conditional denoiser.

    Estimates of x_0, eps and v differ by multiples of each other at a given x_t, so guiding one guides all (Ho &
    Salimans, 2022, eq. 6, with scale = 1 + w). Both estimates are one network evaluation of twice the batch.
    """

    reads_y, can_sample = True, False

    def __init__(self, denoiser: Conditional, scale: float) -> None:
        super().__init__()
        self.denoiser, self.scale = denoiser, scale

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        assert y is not None
        unknown = torch.zeros_like(y) if y.is_floating_point() else torch.full_like(y, -1)
        found = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), y=torch.cat([y, unknown]))
        assert isinstance(found, Denoised)
        with_y, without = found.mean.chunk(2)
        interpolation = found.interpolation
        if isinstance(interpolation, Tensor):
            interpolation = interpolation[: len(x)]
        return Denoised(torch.lerp(without, with_y, self.scale), interpolation)
