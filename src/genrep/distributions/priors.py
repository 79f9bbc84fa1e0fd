"""Priors of latent-variable models besides the standard normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional
from genrep.distributions.basic import Event, Gaussian
from genrep.distributions.latent import Ancestral, Reparametrised
from genrep.nets.condition import encode_condition

NoiseName = Literal["normal", "uniform"]


class Hypersphere(Conditional):
    """The uniform law on the unit sphere in R^d; singular, so without a density."""

    measure = "improper"
    zero: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"Expected latent >= 2 for a hypersphere, got {latent}.")
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        return Ancestral(lambda n: F.normalize(torch.randn_like(self.zero.expand(n, -1)), dim=1), None)


class NoiseGenerator(Conditional):
    """z = net(eps, y), eps ~ N(0, I) or uniform in [0, 1): a prior that learns through its draws."""

    measure = "improper"
    zero: Tensor

    def __init__(self, net: nn.Module, noise: int, law: NoiseName = "normal", condition: int = 0) -> None:
        super().__init__()
        self.net, self.law, self.condition_width, self.reads_y = net, law, condition, condition > 0
        self.register_buffer("zero", torch.zeros(noise), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        def draw(n: int) -> Tensor:
            like = self.zero.expand(n, -1)
            eps = torch.randn_like(like) if self.law == "normal" else torch.rand_like(like)
            c = encode_condition(y, self.condition_width, eps) if self.reads_y else None
            return self.net(eps, c).float()

        return Reparametrised(draw, len(y) if self.reads_y and y is not None else None)


class Mixture(Event):
    """sum_k w_k N(mean_k, std_k): means and log standard deviations (K, *z), unnormalised log-weights (K,)."""

    def __init__(self, mean: Tensor, log_std: Tensor, log_weight: Tensor) -> None:
        super().__init__(mean[0], batched=False)
        self.components, self.log_weight = Gaussian(mean, log_std), log_weight.log_softmax(0)

    @property
    def mean(self) -> Tensor:
        return torch.tensordot(self.log_weight.exp(), self.components.mean, 1)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            n = torch.Size(sample_shape).numel()
            chosen = torch.multinomial(self.log_weight.exp(), n, replacement=True)
            picked = Gaussian(self.components.mean[chosen], self.components.log_std[chosen])
            return picked.sample().reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., *z) -> (...)."""
        each = self.components.log_prob(value.unsqueeze(value.ndim - len(self.event_shape)))
        return (each + self.log_weight).logsumexp(-1)


class GaussianMixture(Conditional):
    """p(z) = sum_k w_k N(m_k, s_k) with learnt weights, means and standard deviations; it starts near N(0, I)."""

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Expected components >= 1, got {components}.")
        self.mean = nn.Parameter(0.5 * torch.randn(components, latent))
        self.log_std = nn.Parameter(torch.full((components, latent), 0.5 * math.log(0.75)))
        self.log_weight = nn.Parameter(torch.zeros(components))

    def forward(self, *, y: Tensor | None = None) -> Mixture:
        return Mixture(self.mean, self.log_std, self.log_weight)


class VampPrior(Conditional):
    """p(z) = 1/K sum_k q(z | u_k): the posterior at learnt pseudo-inputs (Tomczak & Welling, 2018, eq. 9).

    `posterior` is the encoder of the model itself, with a Gaussian q; it is asked with no condition.
    """

    def __init__(self, posterior: Conditional, shape: Sequence[int], components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Expected components >= 1, got {components}.")
        self.posterior, self.inputs = posterior, nn.Parameter(0.5 * torch.randn(components, *shape))
        self.fewest = components

    def forward(self, *, y: Tensor | None = None) -> Mixture:
        q = self.posterior(self.inputs)
        return Mixture(q.mean, q.log_std, q.mean.new_zeros(len(self.inputs)))
