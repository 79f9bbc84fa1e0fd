"""The diffusion of a Gaussian, whose denoiser, bound and model density are known."""

import math

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Conditional
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import Denoised
from genrep.distributions.schedules import Chain, named

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.5, 0.1], [0.5, 0.8, -0.2], [0.1, -0.2, 0.3]], dtype=torch.float64)


class Exact(Conditional):
    """E[x_0 | x_t] for x_0 ~ N(MEAN, COVARIANCE), plus an error."""

    def __init__(self, chain, error=0.0, interpolation=0.0):
        super().__init__()
        self.process, self.interpolation = VariancePreserving(chain), interpolation
        self.error = nn.Parameter(torch.tensor(error))

    def gain(self, alpha, sigma):
        return alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(3))

    def forward(self, x, t, *, y=None):
        alpha, sigma = self.process.scales(t, x)
        if (t == t[0]).all():
            gains = self.gain(alpha[0], sigma[0]).expand(len(x), 3, 3)
        else:
            gains = self.gain(alpha[..., None], sigma[..., None])
        mean = MEAN + self.error + torch.einsum("bij,bj->bi", gains, x - alpha * MEAN)
        return Denoised(mean, self.interpolation)


class Centred(Exact):
    """The same for MEAN = 0: linear in x_t."""

    def forward(self, x, t, *, y=None):
        return Denoised(super().forward(x + self.process.scales(t, x)[0] * MEAN, t).mean - MEAN - self.error)


def covariance_of(monkeypatch, walk, chain, steps, **option):
    """The exact covariance of what a sampler draws from a linear denoiser in so many steps of the chain.

    Row i of x holds the weight of the i-th of all numbers drawn, so that no number is ever drawn.
    """
    draws, diffusion = 2 * steps, Diffusion(Centred(chain), chain, (3,))
    short = chain.respaced(steps, "log_snr")
    x, taken = torch.zeros(3 * draws + 3, 3), [1]
    x[:3] = torch.eye(3)

    def next_block(like):
        block = torch.zeros_like(like)
        block[3 * taken[0] : 3 * taken[0] + 3] = torch.eye(3)
        taken[0] += 1
        return block

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", next_block)
        x = walk(diffusion.along(short, None), x, short, **option)
    return x.T @ x


def exact(steps, schedule="cosine", **options):
    chain = Chain(named(schedule, steps))
    return Diffusion(Exact(chain, **options), chain, (3,))


def close(draws, expected, errors=5.0):
    """Means over dimension 0 agree with the expected within that many standard errors."""
    standard = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= errors * standard + 1e-9).all(), (draws.mean(0), expected, standard)


@torch.no_grad()
def closed_terms(diffusion, x):
    """E_q of each term for the exact denoiser of a Gaussian, (T + 1,) at x (3,), or (T + 1, N) at x (N, 3)."""
    chain, denoiser, eye, terms = diffusion.chain, diffusion.denoiser, torch.eye(3), []
    for k in range(1, chain.steps + 1):
        alpha, sigma, low = chain.alpha[k], chain.sigma[k], chain.log_small[k]
        log_variance = low + denoiser.interpolation * (chain.log_beta[k] - low)
        gain = denoiser.gain(alpha, sigma)
        error = (x - MEAN) @ (eye - alpha * gain).T - denoiser.error
        square = error.square().sum(-1) + sigma**2 * (gain @ gain.T).trace()
        term = chain.from_start[k] ** 2 * square / (2 * log_variance.exp())
        widening = 1.5 * ((low - log_variance).exp() - 1 - (low - log_variance))
        terms.append(term + (1.5 * (math.log(2 * math.pi) + log_variance) if k == 1 else widening))
    alpha, sigma = chain.alpha[-1], chain.sigma[-1]
    return torch.stack([*terms, 0.5 * (alpha**2 * x.square().sum(-1) + 3 * (sigma**2 - 1 - 2 * sigma.log()))])


def fine(steps, end=-12.0):
    """Its log-SNR falls evenly from 12 to `end` after the first step, so that steps get finer everywhere."""
    return Chain(torch.cat([torch.zeros(1), nn.functional.logsigmoid(torch.linspace(12, end, steps))]))


@torch.no_grad()
def model_density(diffusion):
    """p(x_0) of a linear reverse chain: each step maps a Gaussian to a Gaussian."""
    chain, denoiser = diffusion.chain, diffusion.denoiser
    mean, covariance, eye = torch.zeros(3), torch.eye(3), torch.eye(3)
    for k in range(chain.steps, 0, -1):
        gain = denoiser.gain(chain.alpha[k], chain.sigma[k])
        a = chain.from_start[k] * gain + chain.from_next[k] * eye
        mean = a @ mean + chain.from_start[k] * (MEAN + denoiser.error - chain.alpha[k] * gain @ MEAN)
        step = chain.reverse(torch.zeros(1, 3), torch.zeros(1, 3), k, denoiser.interpolation)
        covariance = a @ covariance @ a.T + step.variance[0, 0] * eye
    return MultivariateNormal(mean, covariance)
