"""The small classifier whose features stand for digits, letters and clothes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling: (B, C, H, W) -> logits (B, classes).

    `embed` gives the 84 values before the last layer. Both convolutions keep the size, the first pooling is left out
    below 16 pixels and the second makes it 5 x 5, so images of any size fit; 28 x 28 gives the original widths.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 6, 5, padding=2), nn.Conv2d(6, 16, 5, padding=2)
        self.dense, self.features, self.head = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Features (B, 84)."""
        return self.features(self.dense(self.maps(x).flatten(1)).relu()).relu()

    def maps(self, x: Tensor) -> Tensor:
        """What the convolutions see and where, (B, 16, 5, 5)."""
        x = self.first(x).relu()
        x = F.max_pool2d(x, 2) if min(x.shape[2:]) >= 16 else x
        return F.adaptive_max_pool2d(self.second(x).relu(), 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))
