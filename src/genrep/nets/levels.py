"""K levels as points of [-1, 1], and back, and as vectors that networks can read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_EMBEDDED = 256  # above, a table of vectors would be large and mostly unseen


def level_of(value: Tensor, levels: int) -> Tensor:
    """The nearest of the K levels to a value, values outside of [-1, 1] going to the ends."""
    return ((value.clamp(-1, 1) + 1) * ((levels - 1) / 2)).round().long()


def level_value(level: Tensor, like: Tensor, levels: int) -> Tensor:
    """2 k / (K - 1) - 1, with the type of `like`."""
    return level.to(like.dtype) / ((levels - 1) / 2) - 1


def one_hot(value: Tensor, levels: int) -> Tensor:
    """(..., K), with the type of `value`: levels as categories without an order."""
    return F.one_hot(level_of(value, levels), levels).to(value.dtype)


class LevelEmbedding(nn.Module):
    """Pixels (..., C) in [-1, 1] -> (..., width): a learnt vector for each level of each channel, summed.

    Above 256 levels a linear map of the values stands in for the table.
    """

    def __init__(self, channels: int, levels: int, width: int) -> None:
        super().__init__()
        self.levels = levels
        table = levels <= MOST_EMBEDDED
        self.table = nn.Embedding(channels * levels, width) if table else None
        self.linear = None if table else nn.Linear(channels, width)
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.5 / channels**0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            assert self.linear is not None
            return self.linear(x)
        offset = torch.arange(x.shape[-1], device=x.device) * self.levels
        return self.table(level_of(x, self.levels) + offset).sum(-2)
