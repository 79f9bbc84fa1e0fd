"""Batch normalisation as a layer of flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genrep.collective import averaged
from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import bounded
from genrep.distributions.flows.normalise import shared_dimensions


class BatchNorm(Bijection):
    """z = (x - m) / sqrt(v + 1e-5) exp(s) + t (RealNVP, Dinh et al., 2017, section 3.7); s = 6 tanh(raw / 6).

    In train mode m and v are those of the batch, seen by the gradient, and running averages of them are kept: of all
    ranks, which so agree. In eval mode, and in the inverse, they are the running averages, and examples do not see each
    other. `shape`: what has its own scale, (D,), (C, 1, 1) or (C, H, W). Before any training it is the identity.
    """

    mean: Tensor
    variance: Tensor
    momentum = 0.05
    epsilon = 1e-5
    limit = 6.0

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape) - self.epsilon)
        self.scale, self.shift = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        mean, variance = self._of_batch(x) if self.training else (self.mean, self.variance)
        log_scale = self._log_scale(variance, x)
        return (x - mean.to(x.dtype)) * log_scale.exp() + self.shift.to(x.dtype), self._log_det(log_scale, x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        log_scale = self._log_scale(self.variance, z)
        x = (z - self.shift.to(z.dtype)) * (-log_scale).exp() + self.mean.to(z.dtype)
        return x, self._log_det(-log_scale, z)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shared = shared_dimensions(tuple(self.mean.shape), x)
        if math.prod(x.shape[k] for k in shared) < 2:
            raise ValueError(f"Batch normalisation needs at least two examples in training, got {len(x)}.")
        mean = x.mean(shared).view(self.mean.shape)
        variance = (x - mean).square().mean(shared).view(self.mean.shape)
        self._keep(mean.detach(), variance.detach())
        return mean, variance

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        moments = averaged(torch.stack([mean, variance + mean.square()]).to(self.mean.dtype))
        self.mean.lerp_(moments[0], self.momentum)
        self.variance.lerp_((moments[1] - moments[0].square()).clamp_min(0), self.momentum)

    def _log_scale(self, variance: Tensor, x: Tensor) -> Tensor:
        return (bounded(self.scale, self.limit) - 0.5 * (variance + self.epsilon).log()).to(x.dtype)

    def _log_det(self, log_scale: Tensor, x: Tensor) -> Tensor:
        return (log_scale.sum() * (math.prod(x.shape[1:]) // log_scale.numel())).expand(len(x))
