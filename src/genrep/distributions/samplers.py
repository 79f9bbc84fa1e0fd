"""Samplers of diffusion models: from x_n ~ N(0, I) along a chain to x_0, all with one signature.

denoise(x, k) -> Denoised, the estimate of x_0 given x_k = x; one network evaluation. All but `ancestral` follow the
probability-flow equation, so that x_0 is a function of x_n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from genrep.distributions.basic import Point
from genrep.distributions.schedules import Chain

SamplerName = Literal["ancestral", "ddim", "heun", "dpm_solver"]


class Denoised(Point):
    """The estimate of x_0, and where the reverse variance lies: 0 at btilde, 1 at beta (see `Chain.reverse`)."""

    def __init__(self, value: Tensor, interpolation: Tensor | float = 0.0) -> None:
        super().__init__(value)
        self.interpolation = interpolation


Denoise = Callable[[Tensor, int], Denoised]


class Sampler(NamedTuple):
    """A walk down a chain, its usual number of network evaluations (0: every step), and how many a step takes."""

    walk: Callable[[Denoise, Tensor, Chain], Tensor]
    usual: int
    per_step: int = 1

    def steps(self, evaluations: int) -> int:
        """Steps that so many evaluations allow; the last step takes one."""
        return (evaluations - 1) // self.per_step + 1

    def evaluations(self, steps: int) -> int:
        return (steps - 1) * self.per_step + 1


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
        x = _turn(x, denoise(x, k).mean, chain, k)
    return x


def heun(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """dx / dangle = v where a = cos(angle), s = sin(angle), by Heun's method: two evaluations a step, second order.

    Karras et al. (2022), algorithm 1, in the angle of the chain instead of s / a, which here grows without bound.
    """
    angle = chain.sigma.atan2(chain.alpha)
    for k in range(chain.steps, 0, -1):
        start = denoise(x, k).mean
        guess = _turn(x, start, chain, k)
        if k > 1:
            slope = (chain.alpha[k] * x - start) / chain.sigma[k]
            again = (chain.alpha[k - 1] * guess - denoise(guess, k - 1).mean) / chain.sigma[k - 1]
            guess = x + (angle[k - 1] - angle[k]) * (slope + again) / 2
        x = guess
    return x


def dpm_solver(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """DPM-Solver++(2M): x_0 extrapolated along log(a / s) from this step and the last (Lu et al., 2022, algorithm 2).

    x_(k-1) = s_(k-1) / s_k x_k - a_(k-1) (exp(-h) - 1) D, D = x_0 + h / (2 h') (x_0 - x_0'), with h the step in
    log(a / s) and a prime for the step before; the last step is of first order.
    """
    log_ratio, before = chain.alpha.log() - chain.sigma.log(), None
    for k in range(chain.steps, 0, -1):
        start = denoise(x, k).mean
        if k == 1:
            return start
        ahead, h = start, log_ratio[k - 1] - log_ratio[k]
        if before is not None:
            ahead = start + h / (2 * (log_ratio[k] - log_ratio[k + 1])) * (start - before)
        x = chain.sigma[k - 1] / chain.sigma[k] * x - chain.alpha[k - 1] * (-h).expm1() * ahead
        before = start
    return x


def _turn(x: Tensor, start: Tensor, chain: Chain, k: int) -> Tensor:
    noise = (x - chain.alpha[k] * start) / chain.sigma[k]
    return chain.alpha[k - 1] * start + chain.sigma[k - 1] * noise


SAMPLERS: Mapping[str, Sampler] = {
    "ancestral": Sampler(ancestral, 0),
    "ddim": Sampler(ddim, 50),
    "heun": Sampler(heun, 39, per_step=2),
    "dpm_solver": Sampler(dpm_solver, 20),
}
