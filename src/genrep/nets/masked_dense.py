"""Masked dense networks: output i reads only the inputs before i."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.coupling import zeroed


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is zero where `mask` (out, in) is."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedDense(nn.Module):
    """(B, D), (B, condition) or None -> (B, size, D), output i a function of the condition and of x_j, j before i.

    MADE (Germain et al., 2015, eqs. 12-13) with residual blocks; all hidden layers share their degrees, so that adding
    them keeps the order. `reverse`: from the last column to the first. The last layer starts at zero, and what it reads
    is bounded, so that its outputs are at any x.
    """

    def __init__(
        self, values: int, size: int, width: int, depth: int, condition: int = 0, *, reverse: bool = False
    ) -> None:
        super().__init__()
        self.shape_out = (size, values)
        order = torch.arange(values).flip(0) if reverse else torch.arange(values)
        degree = torch.arange(width) % max(values - 1, 1)  # unit k reads the inputs of order <= degree
        self.stem = MaskedLinear((order <= degree[:, None]).float() if values > 1 else torch.zeros(width, 1))
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        within = (degree <= degree[:, None]).float()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), MaskedLinear(within), nn.ReLU(), MaskedLinear(within)) for _ in range(depth)
        )
        self.head = MaskedLinear((degree < order[:, None]).float().repeat(size, 1))
        zeroed(self.head)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.stem(x)
        if self.given is not None:
            assert c is not None
            h = h + self.given(c)
        for block in self.blocks:
            h = h + block(h)
        return self.head(F.softsign(h)).unflatten(1, self.shape_out)
