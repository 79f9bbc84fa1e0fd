"""Convolutional encoder and decoder for images of any size from 8 x 8 and any number of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sizes(height: int, width: int, depth: int) -> list[tuple[int, int]]:
    """Sizes of the image after 0, 1, ..., depth halvings, odd ones rounded up; a ValueError where it gets below 2.

    >>> sizes(28, 28, 3)
    [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    found = [(math.ceil(height / 2**k), math.ceil(width / 2**k)) for k in range(depth + 1)]
    if min(found[-1]) < 2:
        most = max(0, (min(height, width) - 1).bit_length() - 1)
        raise ValueError(
            f"A {height} x {width} image can be halved {most} times at most, got depth={depth}; that takes at least "
            f"{2**depth + 1} x {2**depth + 1}."
        )
    return found


def default_depth(height: int, width: int) -> int:
    """Halvings down to a side of 4 to 7."""
    return max(1, int(math.log2(min(height, width) / 4)))


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of about 8 channels; it works at any batch size."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = lambda: nn.Conv2d(channels, channels, 3, padding=1)  # noqa: E731
        self.layers = nn.Sequential(norm(channels), nn.SiLU(), conv(), norm(channels), nn.SiLU(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvEncoder(nn.Module):
    """(B, C, H, W), (B, condition) or None -> (B, *out): halvings with a residual block each, then one linear layer."""

    def __init__(
        self, shape: Sequence[int], width: int, shape_out: Sequence[int], depth: int, condition: int = 0
    ) -> None:
        super().__init__()
        c, h, w = shape
        channels = [width * min(2**k, 4) for k in range(depth + 1)]
        layers: list[nn.Module] = [nn.Conv2d(c, channels[0], 3, padding=1)]
        for a, b in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.SiLU(), nn.Conv2d(a, b, 3, stride=2, padding=1), ResidualBlock(b)]
        self.layers = nn.Sequential(*layers, norm(channels[-1]), nn.SiLU())
        last = sizes(h, w, depth)[-1]
        self.head = nn.Linear(channels[-1] * last[0] * last[1] + condition, math.prod(shape_out))
        self.shape_out, self.condition = tuple(shape_out), condition

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.layers(x).flatten(1)
        if self.condition:
            assert c is not None
            h = torch.cat([h, c], 1)
        return self.head(h).unflatten(1, self.shape_out)


class ConvDecoder(nn.Module):
    """(B, *z), (B, condition) or None -> (B, C, H, W): one linear layer, then doublings with a residual block each."""

    def __init__(self, latent: int, width: int, shape_out: Sequence[int], depth: int, condition: int = 0) -> None:
        super().__init__()
        channels, height, wide = shape_out
        self.sizes = sizes(height, wide, depth)[::-1]
        widths = [width * min(2**k, 4) for k in range(depth + 1)][::-1]
        self.start = (widths[0], *self.sizes[0])
        self.stem = nn.Linear(latent + condition, math.prod(self.start))
        self.blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(a), nn.Conv2d(a, b, 3, padding=1))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Sequential(norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels, 3, padding=1))
        self.condition = condition

    @torch.no_grad()
    def embed(self) -> None:
        """Start the weights of the condition from N(0, 1), as `MLP.embed` does: for one-hot conditions."""
        nn.init.normal_(self.stem.weight[:, -self.condition :])

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        z = z.flatten(1)
        if self.condition:
            assert c is not None
            z = torch.cat([z, c], 1)
        h = self.stem(z).unflatten(1, self.start)
        for block, size in zip(self.blocks, self.sizes[1:], strict=True):
            h = F.interpolate(block(h), size=size, mode="nearest")
        return self.head(h)
