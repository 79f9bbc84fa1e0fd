"""The vision transformer of DINOv2 with the names that its weight files use; its sizes are read from the weights.

Reference: Oquab et al. (2024), table 16; Dosovitskiy et al. (2021), eqs. 1 to 4, with a learnt scale of every branch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64  # features of one attention head, in all sizes


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, d) -> (B, N, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Dense(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    """Each feature times a learnt number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + scale attention(norm x), then the same with the dense layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, eps=1e-6), Dense(width, hidden), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    """Every patch of an image as one vector: (B, C, H, W) -> (B, rows, columns, d)."""

    def __init__(self, width: int, channels: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, side, side)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class DINOv2(nn.Module):
    """Images (B, 3, H, W) in units of the ImageNet mean and deviation, sides multiples of the patch -> (B, d).

    The output is the normalised class token.
    """

    def __init__(
        self, *, width: int = 384, depth: int = 12, hidden: int = 1536, grid: int = 37, patch: int = 14
    ) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the training, unused here
        self.patch_embed = Patches(width, 3, patch)
        self.blocks = nn.ModuleList([Block(width, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @staticmethod
    def like(weights: Mapping[str, Tensor]) -> DINOv2:
        """The network that these weights fit; a KeyError names a tensor that is missing."""
        width, _, patch, _ = weights["patch_embed.proj.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        hidden = len(weights["blocks.0.mlp.fc1.bias"])
        grid = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
        return DINOv2(width=width, depth=depth, hidden=hidden, grid=grid, patch=patch)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position vectors of class token and patches, (1, 1 + rows columns, d), interpolated to another grid.

        The scale is that of a grid larger by a tenth of a patch, as in the published features.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        moved = F.interpolate(square, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], moved.flatten(2).mT], 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % self.patch or x.shape[3] % self.patch:
            raise ValueError(f"Expected sides that are multiples of {self.patch}, got {tuple(x.shape[2:])}.")
        patches = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(1, 2)], 1)
        tokens = tokens + self.positions(*patches.shape[1:3])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])
