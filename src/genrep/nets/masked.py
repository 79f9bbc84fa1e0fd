"""Causal convolutions over images: the plain and the gated PixelCNN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.raster import ColumnCache, Raster, RowCache, Walk, by_rows, shifted, with_ones


def pixelwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 x 1 convolution at one pixel, (n, C) -> (n, out)."""
    return F.linear(x, conv.weight[:, :, 0, 0], conv.bias)


def project(linear: nn.Linear | None, condition: Tensor | None, zeros: Tensor) -> Tensor:
    """The projection of a condition, or `zeros` where none is read."""
    if linear is None:
        return zeros
    assert condition is not None
    return linear(condition)


class GatedLayer(nn.Module):
    """Two stacks: v at row i sees rows <= i of its input, h at (i, j) sees columns <= j of its row, and v there.

    v' = glu(a), a = conv(v); h' = h + W glu(conv(h) + W' a), both plus a projection of the condition, and v' with a
    residual too; where the input has another number of channels there is none (van den Oord et al., 2016b, figure 2).
    glu(a) = a_1 sigmoid(a_2) (Dauphin et al., 2017, eq. 1): the paper's tanh on a_1 costs several times as much and
    learnt no faster.
    """

    def __init__(self, channels: int, width: int, kernel: int, condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.reach, self.residual = kernel // 2, channels == width
        self.vertical = nn.Conv2d(channels, 2 * width, (self.reach + 1, kernel), padding=(0, self.reach))
        self.horizontal = nn.Conv2d(channels, 2 * width, (1, self.reach + 1))
        self.across, self.out = nn.Conv2d(2 * width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.condition = nn.Linear(condition, 4 * width, bias=False) if condition else None

    def biases(self, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Projections of the condition for v and for h, (B, 2 width) each; (1, 2 width) of zeros where none is read."""
        projected = project(self.condition, condition, self.out.weight.new_zeros(1, 4 * self.out.out_channels))
        down, along = projected.chunk(2, 1)
        return down, along

    def forward(self, v: Tensor, h: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        down, along = self.biases(condition)
        a = self.vertical(F.pad(v, (0, 0, self.reach, 0))) + down[:, :, None, None]
        b = self.horizontal(F.pad(h, (self.reach, 0))) + self.across(a) + along[:, :, None, None]
        new_v, new_h = F.glu(a, 1), self.out(F.dropout(F.glu(b, 1), self.dropout, self.training))
        return (v + new_v, h + new_h) if self.residual else (new_v, new_h)


class GatedWalk:
    """A gated layer one pixel at a time: `row` once per row, then `pixel` at each of its columns."""

    def __init__(self, layer: GatedLayer, n: int, width: int, condition: Tensor | None) -> None:
        self.layer, (self.down, self.along) = layer, layer.biases(condition)
        assert layer.horizontal.bias is not None
        self.along = self.along + layer.horizontal.bias
        self.above = RowCache(layer.vertical.weight, layer.vertical.bias, n, width)
        self.left = ColumnCache(layer.horizontal.weight[:, :, 0], n, width)
        self.base = self.along  # (W, n, 2 width) once a row has begun

    def row(self, v: Tensor) -> Tensor:
        a = self.above(v) + self.down.unsqueeze(2)
        self.base = pixelwise(self.layer.across, a.permute(2, 0, 1)) + self.along
        return v + F.glu(a, 1) if self.layer.residual else F.glu(a, 1)

    def pixel(self, j: int, h: Tensor) -> Tensor:
        new = pixelwise(self.layer.out, F.glu(self.left(j, h, self.base[j]), 1))
        return h + new if self.layer.residual else new


class GatedNetwork(Raster):
    """`depth` gated layers, the first with a wide kernel; no blind spot (van den Oord et al., 2016b, section 2).

    The image enters moved down by a row in v and right by a column in h, so that no layer needs a mask.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        kernel: int,
        condition: int = 0,
        *,
        dropout: float = 0.0,
        stem: int = 7,
    ) -> None:
        super().__init__()
        self.features = width
        self.layers = nn.ModuleList(
            GatedLayer(width if k else channels + 1, width, kernel if k else stem, condition, dropout)
            for k in range(depth)
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = with_ones(x)
        v, h = shifted(x, 1, 0), shifted(x, 0, 1)
        for layer in self.layers:
            v, h = layer(v, h, condition)
        return h

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        layers = [GatedWalk(layer, n, width, condition) for layer in cast("Iterable[GatedLayer]", self.layers)]

        def row(v: Tensor) -> None:
            for layer in layers:
                v = layer.row(v)

        def pixel(j: int, h: Tensor) -> Tensor:
            for layer in layers:
                h = layer.pixel(j, h)
            return h

        return by_rows(width, row, pixel)


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution that sees the rows above and, in its own row, the columns left of it.

    `itself`: also its own column (mask B), else not (mask A; van den Oord et al., 2016a, figure 4). The rows below are
    not stored at all.
    """

    mask: Tensor

    def __init__(self, channels: int, out: int, kernel: int, *, itself: bool) -> None:
        reach = kernel // 2
        super().__init__(channels, out, (reach + 1, kernel))
        self.reach, self.itself = reach, itself
        mask = torch.ones(reach + 1, kernel)
        mask[-1, reach + itself :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        padded = F.pad(input, (self.reach, self.reach, self.reach, 0))
        return F.conv2d(padded, self.weight * self.mask, self.bias)


class PlainBlock(nn.Module):
    """h + W relu(masked conv(relu(W' relu(h))) + condition) (van den Oord et al., 2016a, figure 5)."""

    def __init__(self, width: int, kernel: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        half = max(1, width // 2)
        self.enter, self.leave = nn.Conv2d(width, half, 1), nn.Conv2d(half, width, 1)
        self.middle = MaskedConv2d(half, half, kernel, itself=True)
        self.condition = nn.Linear(condition, half, bias=False) if condition else None

    def forward(self, h: Tensor, condition: Tensor | None) -> Tensor:
        a = self.middle(self.enter(h.relu()).relu()) + self.bias(condition)[:, :, None, None]
        return h + self.leave(F.dropout(a.relu(), self.dropout, self.training))

    def bias(self, condition: Tensor | None) -> Tensor:
        """The projection of the condition, (B, width / 2); (1, width / 2) of zeros where none is read."""
        return project(self.condition, condition, self.leave.weight.new_zeros(1, self.leave.in_channels))


class MaskedWalk:
    """A masked convolution one pixel at a time; `bias`, (n, out) or (1, out), is added to it."""

    def __init__(self, conv: MaskedConv2d, n: int, width: int, bias: Tensor) -> None:
        weight, r = conv.weight * conv.mask, conv.reach
        self.above = RowCache(weight[:, :, :r], conv.bias, n, width)
        self.left = ColumnCache(weight[:, :, r, : r + conv.itself], n, width)
        self.bias, self.base = bias, bias  # base: (W, n, out) once a row has begun

    def row(self, above: Tensor) -> None:
        """Begin a row; `above` (n, C, W) is the row of the input that has just ended."""
        self.base = self.above(above).permute(2, 0, 1) + self.bias

    def pixel(self, j: int, h: Tensor) -> Tensor:
        """The output at column j from the input there, or left of there for mask A."""
        return self.left(j, h, self.base[j])


class PlainWalk:
    """A block one pixel at a time."""

    def __init__(self, block: PlainBlock, n: int, width: int, condition: Tensor | None) -> None:
        self.block = block
        self.middle = MaskedWalk(block.middle, n, width, block.bias(condition))

    def row(self) -> None:
        self.middle.row(self.middle.left.row())

    def pixel(self, j: int, h: Tensor) -> Tensor:
        a = self.middle.pixel(j, pixelwise(self.block.enter, h.relu()).relu())
        return h + pixelwise(self.block.leave, a.relu())


class PlainNetwork(Raster):
    """A masked convolution and `depth` - 1 blocks; its blind spot is what the gated network removes.

    Van den Oord et al. (2016a), section 3.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        kernel: int,
        condition: int = 0,
        *,
        dropout: float = 0.0,
        stem: int = 7,
    ) -> None:
        super().__init__()
        self.features = width
        self.stem = MaskedConv2d(channels + 1, width, stem, itself=False)
        self.blocks = nn.ModuleList(PlainBlock(width, kernel, condition, dropout) for _ in range(depth - 1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.stem(with_ones(x))
        for block in self.blocks:
            h = block(h, condition)
        return h

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        stem = MaskedWalk(self.stem, n, width, self.stem.weight.new_zeros(1, self.features))
        blocks = [PlainWalk(block, n, width, condition) for block in cast("Iterable[PlainBlock]", self.blocks)]

        def row(above: Tensor) -> None:
            stem.row(above)
            for block in blocks:
                block.row()

        def pixel(j: int, left: Tensor) -> Tensor:
            h = stem.pixel(j, left)
            for block in blocks:
                h = block.pixel(j, h)
            return h

        return by_rows(width, row, pixel)
