"""Monotone maps of single values with parameters from a network; couplings and autoregressive flows share them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def bounded(raw: Tensor, limit: float) -> Tensor:
    """limit tanh(raw / limit): slope one at zero, within (-limit, limit), so that no parameter can overflow exp."""
    return limit * torch.tanh(raw / limit)


class Elementwise(nn.Module, ABC):
    """z = f(x; p) value by value and log dz/dx, both shaped like x (B, *event); p is (B, size, *event).

    p = 0 is where networks start; there f should be close to the identity.
    """

    size: int

    @abstractmethod
    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]: ...


class Affine(Elementwise):
    """z = exp(s) x + t with s = 3 tanh(raw / 3), so that one layer scales by at most e^3 (RealNVP, eq. 7)."""

    size = 2
    limit = 3.0

    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = p.unbind(1)
        log_scale = bounded(raw, self.limit)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = p.unbind(1)
        log_scale = bounded(raw, self.limit)
        return (z - shift) * (-log_scale).exp(), -log_scale


class Shift(Elementwise):
    """z = x + t: volume-preserving (NICE, eq. 10)."""

    size = 1

    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return x + p[:, 0], torch.zeros_like(x)

    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return z - p[:, 0], torch.zeros_like(z)
