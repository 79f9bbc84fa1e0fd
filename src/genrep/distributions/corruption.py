"""What denoising autoencoders undo."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CorruptionName = Literal["gaussian", "masking"]


class Corruption(nn.Module):
    """gaussian: x + strength N(0, I). masking: each value becomes 0, the middle of its range, with that probability."""

    def __init__(self, name: CorruptionName, strength: float) -> None:
        super().__init__()
        if not strength >= 0 or (name == "masking" and strength > 1):
            raise ValueError(f"Expected strength >= 0, for masking a probability, got {strength}.")
        self.name, self.strength = name, strength

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "gaussian":
            return x + self.strength * torch.randn_like(x)
        return x * (torch.rand_like(x) >= self.strength)
