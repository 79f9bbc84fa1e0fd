"""Samplers of diffusion models: from x_n ~ N(0, I) along a chain to x_0, all with one signature.

denoise(x, k) -> Denoised, the estimate of x_0 given x_k = x; one network evaluation. k is a step of the chain, or a
tensor: log abar of a noise between them. `ancestral`, `dpm_solver_sde`, ddim with eta and heun with churn draw noise on
the way; the others follow the probability-flow equation, so that x_0 is a function of x_n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genrep.distributions.basic import Point
from genrep.distributions.schedules import Chain

SamplerName = Literal["ancestral", "ddim", "heun", "dpm_solver", "dpm_solver_sde", "ode"]


class Denoised(Point):
    """The estimate of x_0, and where the reverse variance lies: 0 at btilde, 1 at beta (see `Chain.reverse`)."""

    def __init__(self, value: Tensor, interpolation: Tensor | float = 0.0) -> None:
        super().__init__(value)
        self.interpolation = interpolation


Denoise = Callable[[Tensor, "int | Tensor"], Denoised]


class Sampler(NamedTuple):
    """A walk down a chain.

    `usual` evaluations of the network (0: every step); `per_step` evaluations go `together` steps, the last step takes
    one. `option`: the keyword that it reads. `spaced`: it needs a chain even in log(a / s).
    """

    walk: Callable[..., Tensor]
    usual: int
    per_step: int = 1
    together: int = 1
    option: str = ""
    spaced: bool = False

    def steps(self, evaluations: int) -> int:
        """Steps that so many evaluations allow."""
        return (evaluations - 1) // self.per_step * self.together + 1

    def evaluations(self, steps: int) -> int:
        return (steps - 1) // self.together * self.per_step + 1


def ancestral(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """x_(k-1) ~ p(x_(k-1) | x_k), the last step without noise (Ho et al., 2020, algorithm 2)."""
    for k in range(chain.steps, 0, -1):
        found = denoise(x, k)
        step = chain.reverse(x, found.mean, k, found.interpolation)
        x = step.sample() if k > 1 else step.mean
    return x


def ddim(denoise: Denoise, x: Tensor, chain: Chain, eta: float = 0.0) -> Tensor:
    """x_(k-1) = a_(k-1) x_0 + sqrt(s_(k-1)^2 - c^2) eps + c z with the estimated x_0 and eps, c = eta sqrt(btilde_k).

    eta = 1 is ancestral with the variance btilde_k; 0 draws nothing (Song et al., 2021, eq. 12 and 16).
    """
    for k in range(chain.steps, 0, -1):
        start = denoise(x, k).mean
        noise = (x - chain.alpha[k] * start) / chain.sigma[k]
        variance = eta**2 * chain.log_small[k].exp() if k > 1 else torch.zeros_like(chain.sigma[0])
        x = chain.alpha[k - 1] * start + (chain.sigma[k - 1].square() - variance).clamp_min(0).sqrt() * noise
        if eta and k > 1:
            x = x + variance.sqrt() * torch.randn_like(x)
    return x


def heun(denoise: Denoise, x: Tensor, chain: Chain, churn: float = 0.0) -> Tensor:
    """dx / dangle = v where a = cos(angle), s = sin(angle), by Heun's method: two evaluations a step, second order.

    Karras et al. (2022), algorithms 1 and 2, in the angle of the chain instead of s / a, which here grows without
    bound. With churn, s / a is first raised by the factor 1 + min(churn / steps, sqrt(2) - 1), by fresh noise.
    """
    angle, gamma = chain.sigma.atan2(chain.alpha), min(churn / chain.steps, 2**0.5 - 1)
    for k in range(chain.steps, 0, -1):
        x, log = _stirred(x, chain, k, gamma)
        alpha, sigma = (log / 2).exp(), (-torch.expm1(log)).sqrt()
        start = denoise(x, log if gamma else k).mean
        guess = chain.alpha[k - 1] * start + chain.sigma[k - 1] * (x - alpha * start) / sigma
        if k > 1:
            slope = (alpha * x - start) / sigma
            again = (chain.alpha[k - 1] * guess - denoise(guess, k - 1).mean) / chain.sigma[k - 1]
            guess = x + (angle[k - 1] - sigma.atan2(alpha)) * (slope + again) / 2
        x = guess
    return x


def _stirred(x: Tensor, chain: Chain, k: int, gamma: float) -> tuple[Tensor, Tensor]:
    """x_k with its s / a raised by 1 + gamma, but not above that of the chain's end; and its log abar then."""
    if not gamma:
        return x, chain.log_alpha_bar[k]
    ratio = chain.sigma / chain.alpha
    raised = torch.minimum((1 + gamma) * ratio[k], ratio[-1])
    log = -torch.log1p(raised.square())
    fresh = (raised.square() - ratio[k].square()).clamp_min(0).sqrt() * torch.randn_like(x)
    return (log / 2).exp() * (x / chain.alpha[k] + fresh), log


def dpm_solver(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """DPM-Solver++(2M): x_0 extrapolated along log(a / s) from this step and the last (Lu et al., 2022, algorithm 2).

    x_(k-1) = s_(k-1) / s_k x_k - a_(k-1) (exp(-h) - 1) D, D = x_0 + h / (2 h') (x_0 - x_0'), with h the step in
    log(a / s) and a prime for the step before; the last step is of first order.
    """
    return _multistep(denoise, x, chain, stochastic=False)


def dpm_solver_sde(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """SDE-DPM-Solver++(2M): the same D in the reverse stochastic equation (Lu et al., 2022, section 5).

    x_(k-1) = s_(k-1) / s_k exp(-h) x_k - a_(k-1) (exp(-2 h) - 1) D + s_(k-1) sqrt(1 - exp(-2 h)) z.
    """
    return _multistep(denoise, x, chain, stochastic=True)


def _multistep(denoise: Denoise, x: Tensor, chain: Chain, *, stochastic: bool) -> Tensor:
    log_ratio, before = chain.alpha.log() - chain.sigma.log(), None
    for k in range(chain.steps, 0, -1):
        start = denoise(x, k).mean
        if k == 1:
            return start
        ahead, h = start, log_ratio[k - 1] - log_ratio[k]
        if before is not None:
            ahead = start + h / (2 * (log_ratio[k] - log_ratio[k + 1])) * (start - before)
        rate = 2 * h if stochastic else h
        x = (chain.sigma[k - 1].log() - chain.sigma[k].log() + h - rate).exp() * x
        x = x - chain.alpha[k - 1] * (-rate).expm1() * ahead
        if stochastic:
            x = x + chain.sigma[k - 1] * (-(-rate).expm1()).sqrt() * torch.randn_like(x)
        before = start
    return x


def ode(denoise: Denoise, x: Tensor, chain: Chain) -> Tensor:
    """dx / dl = a (a x - x_0) along l = log(s / a) by the classical Runge-Kutta method: two steps, four evaluations.

    The probability-flow equation (Song et al., 2021, eq. 13), of fourth order on a chain that is even in l.
    """
    ratio = chain.sigma.log() - chain.alpha.log()

    def slope(x: Tensor, k: int) -> Tensor:
        return chain.alpha[k] * (chain.alpha[k] * x - denoise(x, k).mean)

    for k in range(chain.steps, 1, -2):
        h = ratio[k - 2] - ratio[k]
        first = slope(x, k)
        second = slope(x + h / 2 * first, k - 1)
        third = slope(x + h / 2 * second, k - 1)
        x = x + h / 6 * (first + 2 * (second + third) + slope(x + h * third, k - 2))
    return denoise(x, 1).mean


def invert(denoise: Denoise, x: Tensor, chain: Chain, corrections: int = 0) -> Tensor:
    """The x_n from which `ddim` comes to x: its step with the noise estimated one step too early.

    Each of `corrections` at every step estimates the noise anew, where it belongs (a fixed-point iteration), for one
    more evaluation.
    """
    at = chain.alpha[1] * x
    for _ in range(corrections):
        at = at + chain.alpha[1] * (x - denoise(at, 1).mean)
    for k in range(2, chain.steps + 1):
        guess, step = at, k - 1
        for _ in range(corrections + 1):
            noise = (guess - chain.alpha[step] * denoise(guess, step).mean) / chain.sigma[step]
            clean = (at - chain.sigma[k - 1] * noise) / chain.alpha[k - 1]
            guess, step = chain.alpha[k] * clean + chain.sigma[k] * noise, k
        at = guess
    return at


SAMPLERS: Mapping[str, Sampler] = {
    "ancestral": Sampler(ancestral, 0),
    "ddim": Sampler(ddim, 50, option="eta"),
    "heun": Sampler(heun, 39, per_step=2, option="churn"),
    "dpm_solver": Sampler(dpm_solver, 20),
    "dpm_solver_sde": Sampler(dpm_solver_sde, 20),
    "ode": Sampler(ode, 41, per_step=4, together=2, spaced=True),
}
