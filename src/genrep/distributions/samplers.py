"""Samplers of diffusion models: from x_n ~ N(0, I) along a chain to x_0, all with one signature.

denoise(x, k) -> Denoised, the estimate of x_0 given x_k = x; one network evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from genrep.distributions.basic import Point
from genrep.distributions.schedules import Chain

SamplerName = Literal["ancestral", "ddim"]


class Denoised(Point):
    """The estimate of x_0, and where the reverse variance lies: 0 at btilde, 1 at beta (see `Chain.reverse`)."""

    def __init__(self, value: Tensor, interpolation: Tensor | float = 0.0) -> None:
        super().__init__(value)
        self.interpolation = interpolation


Denoise = Callable[[Tensor, int], Denoised]
Sampler = Callable[[Denoise, Tensor, Chain], Tensor]


def ancestral(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """x_(k-1) ~ p(x_(k-1) | x_k), the last step without noise (Ho et al., 2020, algorithm 2)."""
    for k in range(chain.steps, 0, -1):
        found = denoise(x, k)
        step = chain.reverse(x, found.mean, k, found.interpolation)
        x = step.sample() if k > 1 else step.mean
    return x


def ddim(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """x_(k-1) = a_(k-1) x_0 + s_(k-1) eps with the estimated x_0 and eps (Song et al., 2021, eq. 12, sigma = 0)."""
    for k in range(chain.steps, 0, -1):
        start = denoise(x, k).mean
        noise = (x - chain.alpha[k] * start) / chain.sigma[k]
        x = chain.alpha[k - 1] * start + chain.sigma[k - 1] * noise
    return x


SAMPLERS: Mapping[str, tuple[Sampler, int]] = {  # and the usual number of evaluations, 0: all steps of the chain
    "ancestral": (ancestral, 0),
    "ddim": (ddim, 50),
}
