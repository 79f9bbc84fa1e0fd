"""Networks of couplings: same spatial shape out as in, several outputs for each value, zero before training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genrep.nets.conv import ResidualBlock, norm


class ConvCoupling(nn.Module):
    """(B, C, H, W), (B, condition) or None -> (B, size, C, H, W): residual blocks, a last layer that starts at zero."""

    def __init__(self, channels: int, size: int, width: int, depth: int, condition: int = 0) -> None:
        super().__init__()
        self.size = size
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(depth)])
        self.head = nn.Sequential(norm(width), nn.SiLU(), zeroed(nn.Conv2d(width, size * channels, 3, padding=1)))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.stem(x)
        if self.given is not None:
            assert c is not None
            h = h + self.given(c)[:, :, None, None]
        return self.head(self.blocks(h)).unflatten(1, (self.size, -1))


class DenseBlock(nn.Module):
    """x + linear(act(linear(act(norm(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DenseCoupling(nn.Module):
    """(B, *shape), (B, condition) or None -> (B, size, *shape): residual blocks, a last layer that starts at zero.

    `moved`: outputs are (B, size, moved), for so many other columns. `angles`: the values are angles, of which it reads
    cosine and sine.
    """

    def __init__(
        self,
        shape: Sequence[int],
        size: int,
        width: int,
        depth: int,
        condition: int = 0,
        *,
        moved: int | None = None,
        angles: bool = False,
    ) -> None:
        super().__init__()
        values = torch.Size(shape).numel()
        self.shape_out = (size, *shape) if moved is None else (size, moved)
        self.stem, self.angles = nn.Linear((2 if angles else 1) * values + condition, width), angles
        self.blocks = nn.Sequential(*[DenseBlock(width) for _ in range(depth)])
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), zeroed(nn.Linear(width, torch.Size(self.shape_out).numel()))
        )
        self.condition = condition

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = x.flatten(1)
        if self.angles:
            h = torch.cat([h.cos(), h.sin()], 1)
        if self.condition:
            assert c is not None
            h = torch.cat([h, c], 1)
        return self.head(self.blocks(self.stem(h))).unflatten(1, self.shape_out)


def zeroed(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """The layer with weights and bias at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
