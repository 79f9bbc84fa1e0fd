"""Normalisation layers of flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genrep.collective import averaged
from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import bounded


class ActNorm(Bijection):
    """z = (x - mean) / std * exp(s) + t, with mean and std of the first batch seen in train mode (Glow, section 3.1).

    `shape`: what has its own scale, (D,), (C, 1, 1) or (C, H, W). The statistics are buffers, which a checkpoint holds
    and all ranks agree on; s = 6 tanh(raw / 6) and t are learnt and start at zero. Before any training it is the
    identity.
    """

    mean: Tensor
    log_std: Tensor
    started: Tensor
    limit = 6.0

    def __init__(self, *shape: int) -> None:
        super().__init__()
        for name in ("mean", "log_std"):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("started", torch.tensor(0.0))
        self.scale, self.shift = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self._has_started = False  # spares a look at the device in every update

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        if self.training and not self._has_started:
            self._start(x.detach())
        log_scale, shift = self._parameters_of(x)
        scale = log_scale.exp()
        return torch.addcmul(torch.addcmul(shift, -self.mean.to(x.dtype), scale), x, scale), self._log_det(log_scale, x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        log_scale, shift = self._parameters_of(z)
        return (z - shift) * (-log_scale).exp() + self.mean, self._log_det(-log_scale, z)

    def _parameters_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (bounded(self.scale, self.limit) - self.log_std).to(x.dtype), self.shift.to(x.dtype)

    def _log_det(self, log_scale: Tensor, x: Tensor) -> Tensor:
        copies = math.prod(x.shape[1:]) // log_scale.numel()
        return (log_scale.sum() * copies).expand(len(x))

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        if not self.started:
            shared = shared_dimensions(tuple(self.mean.shape), x)
            moments = averaged(torch.stack([x.double().mean(shared), x.double().square().mean(shared)]))
            mean = moments[0].view(self.mean.shape)
            variance = (moments[1].view(self.mean.shape) - mean.square()).clamp_min(1e-6)
            self.mean.copy_(mean)
            self.log_std.copy_(0.5 * variance.log())
            self.started.fill_(1.0)
        self._has_started = True


def shared_dimensions(shape: tuple[int, ...], x: Tensor) -> tuple[int, ...]:
    """Dimensions of x (B, *event) that share one statistic of `shape`."""
    return (0, *[k for k in range(1, x.ndim) if shape[k - 1] == 1 and x.shape[k] != 1])
