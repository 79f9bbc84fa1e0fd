"""The U-Net of diffusion models, for images of any size (Ho et al., 2020; Nichol & Dhariwal, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.conv import norm, sizes
from genrep.nets.time import ScaleShift, TimeEmbedding, zeroed


class Encoded(NamedTuple):
    """What the encoder leaves: skips level by level, the middle block's output, the embedding of time and condition."""

    skips: list[list[Tensor]]
    middle: Tensor
    embedding: Tensor


class Block(nn.Module):
    """skip(h) + conv(dropout(act(scale_shift(norm(conv(act(norm(h))))))))."""

    def __init__(self, channels_in: int, channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(norm(channels_in), nn.SiLU(), nn.Conv2d(channels_in, channels, 3, padding=1))
        self.norm, self.modulate = norm(channels), ScaleShift(embedding, channels)
        self.leave = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Conv2d(channels, channels, 3, padding=1)))
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.skip(h) + self.leave(self.modulate(self.norm(self.enter(h)), embedding))


class Attention(nn.Module):
    """h + self-attention over the pixels; heads 0: one for every 32 channels."""

    def __init__(self, channels: int, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads or max(1, channels // 32)
        if channels % self.heads:
            raise ValueError(f"Expected heads that divide the {channels} channels of a level, got {self.heads}.")
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        b, c, height, width = h.shape
        qkv = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, c // self.heads))
        mixed = attend(*qkv.unbind(1)).reshape(b, c, height, width)
        return h + self.out(mixed)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q' k / sqrt(d))-weighted v, each (B, heads, d, pixels)."""
    if q.device.type == "cpu":  # the fused kernel is many times slower there on few pixels
        return v @ (k.transpose(-1, -2) @ (q * q.shape[-2] ** -0.5)).softmax(-2)
    q, k, v = q.transpose(-1, -2), k.transpose(-1, -2), v.transpose(-1, -2)
    return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)


class Stage(nn.Module):
    """A block, and attention where the level has it: `heads` is not None."""

    def __init__(self, channels_in: int, channels: int, embedding: int, dropout: float, heads: int | None) -> None:
        super().__init__()
        self.block = Block(channels_in, channels, embedding, dropout)
        self.attention = nn.Identity() if heads is None else Attention(channels, heads)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(h, embedding))


class UNet(nn.Module):
    """(x_t, t, c) -> (B, channels_out, H, W).

    Level l works at the size after l halvings, odd sizes rounded up, with width * multipliers[l] channels. Encoder and
    decoder can be used apart: `encode` gives skips and middle, `decode` the output.

    Args:
        shape: (C, H, W) of x_t.
        channels_out: Channels of the output.
        blocks: Residual blocks of a level of the encoder; the decoder has one more.
        attention: Levels whose shorter side is at most this attend, and the middle; 0: nothing attends.
        heads: Of every attention; 0: one for every 32 channels.
        dropout: Probability, inside the residual blocks.
        condition: Width of the condition c, 0: none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels_out: int,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: int = 8,
        heads: int = 0,
        dropout: float = 0.0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        side = [min(size) for size in sizes(shape[1], shape[2], len(multipliers) - 1)]
        attends = [heads if s <= attention else None for s in side]
        e, channels = 4 * width, [width * m for m in multipliers]
        self.embed = TimeEmbedding(width, e, condition)
        self.activate = nn.SiLU()
        self.stem = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        self.down, self.encoder, self.decoder, self.up = (nn.ModuleList() for _ in range(4))
        skips, c = [[channels[0]]], channels[0]
        for level, wide in enumerate(channels):
            if level:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append([c])
            entering = [c, *[wide] * (blocks - 1)]
            self.encoder.append(nn.ModuleList(Stage(i, wide, e, dropout, attends[level]) for i in entering))
            skips[-1] += [wide] * blocks
            c = wide
        central = heads if attention else None
        self.middle = nn.ModuleList([Stage(c, c, e, dropout, central), Stage(c, c, e, dropout, None)])
        for level in reversed(range(len(channels))):
            wide = channels[level]
            entering = [c + skips[level][-1], *[wide + s for s in reversed(skips[level][:-1])]]
            self.decoder.append(nn.ModuleList(Stage(i, wide, e, dropout, attends[level]) for i in entering))
            c = wide
            if level:
                self.up.append(nn.Conv2d(c, c, 3, padding=1))
        self.head = nn.Sequential(norm(c), nn.SiLU(), zeroed(nn.Conv2d(c, channels_out, 3, padding=1)))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(x, t, c))

    def encode(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Encoded:
        """Down the levels and through the middle."""
        embedding, h = self.activate(self.embed(t, c)), self.stem(x)
        skips = [[h]]
        for level, stages in enumerate(self.encoder):
            if level:
                h = self.down[level - 1](h)
                skips.append([h])
            assert isinstance(stages, nn.ModuleList)
            for stage in stages:
                h = stage(h, embedding)
                skips[-1].append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        return Encoded(skips, h, embedding)

    def decode(self, encoded: Encoded) -> Tensor:
        """Up the levels, each block joined to the skip of its counterpart."""
        h = encoded.middle
        for i, stages in enumerate(self.decoder):
            level = encoded.skips[len(self.decoder) - 1 - i]
            if i:
                h = self.up[i - 1](F.interpolate(h, size=level[-1].shape[-2:], mode="nearest"))
            assert isinstance(stages, nn.ModuleList)
            for stage, skip in zip(stages, reversed(level), strict=True):
                h = stage(torch.cat([h, skip], 1), encoded.embedding)
        return self.head(h)

    def features(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> dict[str, Tensor]:
        """Average-pooled skips of every level, joined, and the pooled middle: {level0: (B, d), ..., middle: (B, d)}."""
        return pooled(self.encode(x, t, c))


def pooled(encoded: Encoded) -> dict[str, Tensor]:
    """The mean over the pixels of every skip, joined level by level, and of the middle."""
    mean = lambda maps: torch.cat([h.mean((2, 3)) for h in maps], 1)  # noqa: E731
    levels = {f"level{i}": mean(skips) for i, skips in enumerate(encoded.skips)}
    return levels | {"middle": mean([encoded.middle])}
