"""Causal transformers over pixels, dense or sparse, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.levels import LevelEmbedding
from genrep.nets.raster import Raster, Walk

Reach = Literal["all", "window", "column"]
AttentionName = Literal["full", "local", "strided"]


def reaches(attention: AttentionName, depth: int) -> list[Reach]:
    """What each layer attends to: everything before, the last W positions, or in turn these and the own column.

    strided is the pattern of the Sparse Transformer with stride W (Child et al., 2019, section 4.3): two layers connect
    every position to all before it, at a cost of H + W instead of H W per position.
    """
    pattern: dict[AttentionName, list[Reach]] = {"full": ["all"], "local": ["window"], "strided": ["window", "column"]}
    return [pattern[attention][k % len(pattern[attention])] for k in range(depth)]


def attend(reach: Reach, q: Tensor, k: Tensor, v: Tensor, width: int) -> Tensor:
    """Causal attention over L = H W positions, (B, heads, L, d) each -> the same."""
    if reach == "all":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    rows = lambda t: t.unflatten(2, (-1, width))  # noqa: E731  -- (B, heads, H, W, d)
    q, k, v = rows(q), rows(k), rows(v)
    if reach == "column":
        q, k, v = (t.transpose(2, 3) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(2, 3).flatten(2, 3)
    k, v = (torch.cat([F.pad(t, (0, 0, 0, 0, 1, 0))[:, :, :-1], t], 3) for t in (k, v))  # the row above, then its own
    i, j = torch.arange(width, device=q.device)[:, None], torch.arange(2 * width, device=q.device)
    seen = (j > i) & (j <= i + width)  # the last W positions, its own among them
    first = torch.arange(q.shape[2], device=q.device)[:, None, None] == 0
    seen = seen & ~(first & (j < width))  # above the image there is nothing
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).flatten(2, 3)


class CausalBlock(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)); (B, L, width)."""

    def __init__(self, width: int, heads: int, reach: Reach) -> None:
        super().__init__()
        self.heads = heads
        self.reach: Reach = reach
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def projections(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, L, d) each."""
        q, k, v = self.qkv(self.norm(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def finish(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.mlp_norm(h))

    def forward(self, h: Tensor, columns: int) -> Tensor:
        return self.finish(h, attend(self.reach, *self.projections(h), columns))


class BlockWalk:
    """A block one position at a time: keys and values are kept, and only those in reach are read."""

    def __init__(self, block: CausalBlock, n: int, length: int, columns: int) -> None:
        self.block, self.columns = block, columns
        weight = block.out.weight
        self.kept = weight.new_zeros(2, n, block.heads, length, weight.shape[0] // block.heads)

    def __call__(self, position: int, h: Tensor) -> Tensor:
        q, k, v = self.block.projections(h.unsqueeze(1))
        self.kept[0, :, :, position], self.kept[1, :, :, position] = k[:, :, 0], v[:, :, 0]
        start = {"all": 0, "window": max(0, position - self.columns + 1), "column": position % self.columns}
        stride = self.columns if self.block.reach == "column" else 1
        k, v = self.kept[:, :, :, start[self.block.reach] : position + 1 : stride]
        return self.block.finish(h.unsqueeze(1), F.scaled_dot_product_attention(q, k, v)).squeeze(1)


class PixelTransformer(Raster):
    """Position k reads pixel k - 1, its own row and column, and what its layers attend to before it.

    Dense attention is image GPT (Chen et al., 2020), window attention the Image Transformer's local one (Parmar et al.,
    2018), strided attention the Sparse Transformer (Child et al., 2019).
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        levels: int,
        width: int,
        depth: int,
        heads: int,
        attention: AttentionName,
        condition: int = 0,
    ) -> None:
        super().__init__()
        channels, height, columns = size
        self.features = width
        self.embed = LevelEmbedding(channels, levels, width)
        self.start = nn.Parameter(torch.zeros(width))  # stands in for the pixel before the first
        self.row, self.column = (nn.Parameter(torch.randn(k, width) * 0.1) for k in (height, columns))
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.blocks = nn.ModuleList(CausalBlock(width, heads, reach) for reach in reaches(attention, depth))
        self.norm = nn.LayerNorm(width)

    def _places(self, condition: Tensor | None) -> Tensor:
        """What is known of each position without any pixel, (B or 1, H W, width)."""
        places = (self.row[:, None] + self.column[None, :]).flatten(0, 1).unsqueeze(0)
        if self.condition is None:
            return places
        assert condition is not None
        return places + self.condition(condition).unsqueeze(1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        before = self.embed(x.flatten(2).transpose(1, 2)[:, :-1])
        h = torch.cat([self.start.expand(len(x), 1, -1), before], 1) + self._places(condition)
        for block in self.blocks:
            h = block(h, x.shape[3])
        return self.norm(h).transpose(1, 2).unflatten(2, x.shape[2:])

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        blocks = [BlockWalk(b, n, height * width, width) for b in cast("Iterable[CausalBlock]", self.blocks)]
        places = self._places(condition)
        position = 0

        def step(previous: Tensor) -> Tensor:
            nonlocal position
            h = (self.embed(previous) if position else self.start.expand(n, -1)) + places[:, position]
            for block in blocks:
                h = block(position, h)
            position += 1
            return self.norm(h)

        return step
