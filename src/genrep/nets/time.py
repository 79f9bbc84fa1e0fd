"""What a denoiser knows beside x_t: its time and its condition, as one vector; and the layer that reads it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(t: Tensor, width: int) -> Tensor:
    """cos and sin of 1000 t at frequencies from 1 to 1 / 10,000, (B, width) float32 (Ho et al., 2020, appendix B)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class TimeEmbedding(nn.Module):
    """(t, c) -> (B, out): two linear layers on the sinusoids, plus a linear map of the condition."""

    def __init__(self, width: int, out: int, condition: int = 0) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        self.enter, self.leave = nn.Linear(self.width, out), nn.Sequential(nn.SiLU(), nn.Linear(out, out))
        self.condition = nn.Linear(condition, out) if condition else None

    def forward(self, t: Tensor, c: Tensor | None = None) -> Tensor:
        embedding = self.leave(self.enter(sinusoids(t, self.width).to(self.enter.weight.dtype)))
        if self.condition is not None:
            assert c is not None
            embedding = embedding + self.condition(c.to(embedding.dtype))
        return embedding


class ScaleShift(nn.Module):
    """h (1 + scale) + shift with scale and shift linear in the embedding (Nichol & Dhariwal, 2021, appendix A)."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.linear(embedding).reshape(len(h), -1, *[1] * (h.ndim - 2)).chunk(2, 1)
        return torch.addcmul(shift, h, 1 + scale)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with zero weights, so that what it adds is nothing at first."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
