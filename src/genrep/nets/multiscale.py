"""The arrangement of PixelCNN++: causal layers at several resolutions, with shortcuts (Salimans et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.masked import GatedLayer, GatedWalk, pixelwise
from genrep.nets.raster import Raster, RowCache, Walk, by_rows, shifted, with_ones


def doubled(x: Tensor, height: int, width: int) -> Tensor:
    """Every pixel four times, cut to the size: (I, J) goes to (2 I, 2 J) and three places after it."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :height, :width]


class Scale(nn.Module):
    """`depth` gated layers, the coarser scales inside, `depth` layers that also read their mirror images before.

    The two stacks of `GatedLayer` stay causal: at half size v at row I reads rows 2 I - 1 and 2 I, h at (I, J) reads
    columns 2 J - 1 and 2 J of row 2 I, and both return to pixels from (2 I, 2 J) on.
    """

    def __init__(
        self, width: int, depth: int, kernel: int, condition: int, *, halvings: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layer = lambda: GatedLayer(width, width, kernel, condition, dropout)  # noqa: E731
        self.down, self.up = (nn.ModuleList(layer() for _ in range(depth)) for _ in range(2))
        self.shortcuts = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2 * depth))  # v and h of each layer
        fewer = halvings - 1
        self.inner = Scale(width, depth, kernel, condition, halvings=fewer, dropout=dropout) if halvings else None
        self.shrink_v = nn.Conv2d(width, width, (2, 3), stride=2, padding=(0, 1)) if halvings else None
        self.shrink_h = nn.Conv2d(width, width, (1, 2), stride=2) if halvings else None

    def forward(self, v: Tensor, h: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        mirror = []
        for layer in self.down:
            v, h = layer(v, h, condition)
            mirror.append((v, h))
        if self.inner is not None:
            assert self.shrink_v is not None
            assert self.shrink_h is not None
            inner = self.inner(self.shrink_v(F.pad(v, (0, 0, 1, 0))), self.shrink_h(F.pad(h, (1, 0))), condition)
            v, h = (t + doubled(a, *t.shape[2:]) for t, a in zip((v, h), inner, strict=True))
        for layer, to_v, to_h in zip(self.up, self.shortcuts[::2], self.shortcuts[1::2], strict=True):
            then_v, then_h = mirror.pop()
            v, h = layer(v + to_v(then_v), h + to_h(then_h), condition)
        return v, h


class ScaleWalk:
    """A scale one pixel at a time: `row` as a row begins, `pixel` at its columns; coarser ones in every second."""

    def __init__(self, scale: Scale, n: int, width: int, condition: Tensor | None) -> None:
        self.scale, self.i = scale, -1
        walks = lambda layers: [GatedWalk(k, n, width, condition) for k in cast("Iterable[GatedLayer]", layers)]  # noqa: E731
        self.down, self.up = walks(scale.down), walks(scale.up)
        convs = cast("list[nn.Conv2d]", list(scale.shortcuts))
        self.to_v, self.to_h = convs[::2], convs[1::2]
        if scale.inner is not None:
            assert scale.shrink_v is not None
            assert scale.shrink_h is not None
            coarse = (width + 1) // 2
            self.inner = ScaleWalk(scale.inner, n, coarse, condition)
            self.rows = RowCache(scale.shrink_v.weight, scale.shrink_v.bias, n, width)
            self.inner_v = self.inner_h = scale.shrink_h.weight.new_zeros(n, scale.shrink_h.out_channels, coarse)
            self.left = self.inner_h[:, :, 0]
            self.shrink = scale.shrink_h

    def row(self, v: Tensor) -> Tensor:
        """Rows (n, width, W) of v through the scale."""
        self.i += 1
        mirror = []
        for layer in self.down:
            v = layer.row(v)
            mirror.append(v)
        if self.scale.inner is not None:
            shrunk = self.rows(v)
            if self.i % 2 == 0:
                self.inner_v = self.inner.row(shrunk[:, :, ::2])
            v = v + self.inner_v.repeat_interleave(2, 2)[:, :, : v.shape[2]]
        for layer, to_v in zip(self.up, self.to_v, strict=True):
            v = layer.row(v + F.conv1d(mirror.pop(), to_v.weight[:, :, 0], to_v.bias))
        return v

    def pixel(self, j: int, h: Tensor) -> Tensor:
        """A pixel (n, width) of h through the scale."""
        mirror = []
        for layer in self.down:
            h = layer.pixel(j, h)
            mirror.append(h)
        if self.scale.inner is not None:
            if self.i % 2 == 0 and j % 2 == 0:
                left = torch.zeros_like(h) if j == 0 else self.left
                shrunk = F.linear(torch.stack([left, h], 2).flatten(1), self.shrink.weight.flatten(1), self.shrink.bias)
                self.inner_h[:, :, j // 2] = self.inner.pixel(j // 2, shrunk)
            self.left = h
            h = h + self.inner_h[:, :, j // 2]
        for layer, to_h in zip(self.up, self.to_h, strict=True):
            h = layer.pixel(j, h + pixelwise(to_h, mirror.pop()))
        return h


class MultiscaleNetwork(Raster):
    """A wide gated layer, then scales at 1, 1/2, ... 1/2^halvings of the size; it reaches far at little cost."""

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        kernel: int,
        condition: int = 0,
        *,
        halvings: int,
        dropout: float = 0.0,
        stem: int = 7,
    ) -> None:
        super().__init__()
        self.features = width
        self.stem = GatedLayer(channels + 1, width, stem, condition, dropout)
        self.scale = Scale(width, depth, kernel, condition, halvings=halvings, dropout=dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = with_ones(x)
        return self.scale(*self.stem(shifted(x, 1, 0), shifted(x, 0, 1), condition), condition)[1]

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        stem, scale = GatedWalk(self.stem, n, width, condition), ScaleWalk(self.scale, n, width, condition)

        def row(above: Tensor) -> None:
            scale.row(stem.row(above))

        return by_rows(width, row, lambda j, left: scale.pixel(j, stem.pixel(j, left)))
