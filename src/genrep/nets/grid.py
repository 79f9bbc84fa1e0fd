"""Encoders to a grid of latent vectors, and decoders from one: maps for images, a row of positions for vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import interpolate

from genrep.contracts import DataSpec
from genrep.nets.autoencoder import NetworkName, convolutional
from genrep.nets.conv import ResidualBlock, norm, sizes
from genrep.nets.mlp import MLP


class GridEncoder(nn.Module):
    """(B, C, H, W) -> (B, *code, h, w): halvings with a residual block each, then a 1 x 1 convolution."""

    def __init__(self, channels: int, width: int, code: Sequence[int], depth: int) -> None:
        super().__init__()
        widths = [width * min(2**k, 4) for k in range(depth + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.SiLU(), nn.Conv2d(a, b, 3, stride=2, padding=1), ResidualBlock(b)]
        last = widths[-1]
        self.layers = nn.Sequential(
            *layers, ResidualBlock(last), norm(last), nn.SiLU(), nn.Conv2d(last, math.prod(code), 1)
        )
        self.code = tuple(code)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.layers(x).unflatten(1, self.code)


class GridDecoder(nn.Module):
    """(B, z, h, w) -> (B, C, H, W): a residual block, then doublings with one each, to exactly the size of the data."""

    def __init__(self, latent: int, width: int, shape_out: Sequence[int], depth: int) -> None:
        super().__init__()
        channels, height, wide = shape_out
        self.sizes = sizes(height, wide, depth)[::-1]
        widths = [width * min(2**k, 4) for k in range(depth + 1)][::-1]
        self.stem = nn.Sequential(nn.Conv2d(latent, widths[0], 3, padding=1), ResidualBlock(widths[0]))
        self.blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(a), nn.Conv2d(a, b, 3, padding=1))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Sequential(norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.stem(z)
        for block, size in zip(self.blocks, self.sizes[1:], strict=True):
            h = interpolate(block(h), size=size, mode="nearest")
        return self.head(h)


class GridCoders(NamedTuple):
    """Networks, and the shape of what lies between them without its channels: (h, w), or (positions,)."""

    encoder: nn.Module
    decoder: nn.Module
    grid: tuple[int, ...]


def grid_coders(
    data: DataSpec,
    code: Sequence[int],
    channels: int,
    *,
    latent: int,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    positions: int = 16,
) -> GridCoders:
    """Encoder (B, *shape) -> (B, *code, *grid) and decoder (B, latent, *grid) -> (B, channels, ...).

    Images are halved `depth` times, 0: twice, or once below a side of 16. Vectors, and images with network=dense, have
    `positions` latent vectors in a row, 0: one without a position, from `depth` hidden layers, 0: 2. `width`: as for
    `encoder_decoder`.
    """
    if latent < 1 or positions < 0:
        raise ValueError(f"Expected latent >= 1 and positions >= 0, got {latent} and {positions}.")
    shape_out = (channels, *data.shape[1:])
    if not convolutional(data, network, width, depth):
        hidden = [width or 512] * (depth or 2)
        row = (positions,) if positions else ()
        return GridCoders(MLP(data.shape, hidden, (*code, *row)), MLP((latent, *row), hidden, shape_out), row)
    width, depth = width or 32, depth or (2 if min(data.shape[1:]) >= 16 else 1)
    grid = sizes(data.shape[1], data.shape[2], depth)[-1]
    return GridCoders(
        GridEncoder(data.shape[0], width, code, depth), GridDecoder(latent, width, shape_out, depth), grid
    )
