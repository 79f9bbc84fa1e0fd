"""Two-dimensional recurrent networks over pixels: the row LSTM and the diagonal bidirectional LSTM.

Both follow van den Oord et al. (2016a), sections 3.1 and 3.2; equations are numbered as there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.masked import MaskedConv2d, MaskedWalk, pixelwise, project
from genrep.nets.raster import ColumnCache, Raster, RowCache, Walk, by_rows, shifted, with_ones

RecurrentName = Literal["diagonal", "row"]


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c): c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c') for gates (o, f, i, g) along dimension 1 (eq. 3).

    The forget gate starts open: one is added to it.
    """
    o, f, i, g = gates.chunk(4, 1)
    cell = (f + 1).sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


class Gates(nn.Module):
    """What an LSTM reads of its input (the last `taps` columns) and of the condition: (B, 4 hidden, H, W)."""

    def __init__(self, width: int, taps: int, condition: int) -> None:
        super().__init__()
        self.hidden, self.taps = max(1, width // 2), taps
        self.inputs = nn.Conv2d(width, 4 * self.hidden, (1, taps))
        self.condition = nn.Linear(condition, 4 * self.hidden, bias=False) if condition else None

    def bias(self, condition: Tensor | None) -> Tensor:
        """The projection of the condition, (B or 1, 4 hidden)."""
        return project(self.condition, condition, self.inputs.weight.new_zeros(1, 4 * self.hidden))

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.inputs(F.pad(x, (self.taps - 1, 0))) + self.bias(condition)[:, :, None, None]


class LayerWalk(Protocol):
    """A layer one pixel at a time: `row` as a row begins, `pixel` at each of its columns."""

    def row(self, above: Tensor) -> None: ...
    def pixel(self, j: int, x: Tensor) -> Tensor: ...


class RowLSTM(nn.Module):
    """x + W h, all pixels of a row at once; the state at (i, j) reads the states above at j - 1, j, j + 1.

    It also reads `above`, features of the pixel above. What it sees is a triangle above the pixel, widened by what its
    input sees: not all pixels before.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.gates = Gates(width, 2, condition)
        self.hidden = self.gates.hidden
        self.state = nn.Conv1d(self.hidden, 4 * self.hidden, 3, padding=1, bias=False)
        self.up = nn.Conv2d(self.hidden, width, 1)

    def forward(self, x: Tensor, above: Tensor, condition: Tensor | None) -> Tensor:
        gates = self.gates(x + above, condition)
        h = c = gates.new_zeros(len(x), self.hidden, x.shape[3])
        rows = []
        for row in gates.unbind(2):  # one gradient for all rows; that of an index is as large as the whole, for each
            h, c = lstm(row + self.state(h), c)
            rows.append(h)
        return x + self.up(torch.stack(rows, 2))

    def walk(self, n: int, width: int, condition: Tensor | None) -> LayerWalk:
        return RowWalk(self, n, width, condition)


class RowWalk:
    """A row LSTM one pixel at a time: what comes from the row above is computed as the row begins."""

    def __init__(self, layer: RowLSTM, n: int, width: int, condition: Tensor | None) -> None:
        inputs = layer.gates.inputs
        assert inputs.bias is not None
        self.layer, self.bias = layer, layer.gates.bias(condition) + inputs.bias
        self.left = ColumnCache(inputs.weight[:, :, 0], n, width)
        self.above = RowCache(layer.state.weight.unsqueeze(2), None, n, width)
        self.h = self.bias.new_zeros(n, layer.hidden, width)
        self.c, self.base = torch.zeros_like(self.h), self.bias  # base: (W, n, 4 hidden) once a row has begun
        self.line = self.h

    def row(self, above: Tensor) -> None:
        self.base, self.line = self.above(self.h).permute(2, 0, 1) + self.bias, above

    def pixel(self, j: int, x: Tensor) -> Tensor:
        gates = self.left(j, x + self.line[:, :, j], self.base[j])
        self.h[:, :, j], self.c[:, :, j] = lstm(gates, self.c[:, :, j])
        return x + pixelwise(self.layer.up, self.h[:, :, j])


def skew(x: Tensor) -> Tensor:
    """Row i moved right by i, zeros coming in: (..., H, W) -> (..., H, W + H - 1), so that diagonals become columns."""
    height, width = x.shape[-2:]
    flat = F.pad(x, (0, height)).flatten(-2)
    return flat[..., :-height].unflatten(-1, (height, width + height - 1))


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`: (..., H, W + H - 1) -> (..., H, W)."""
    height = x.shape[-2]
    return F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, width + height))[..., :width]


class Diagonal(nn.Module):
    """Left to right along diagonals: the state at (i, j) reads those at (i - 1, j) and (i, j - 1), zeros outside.

    (B, width, H, W) -> states (B, hidden, H, W); the cell comes from (i, j - 1).
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.gates = Gates(width, 1, condition)
        self.hidden = self.gates.hidden
        self.state = nn.Conv1d(self.hidden, 4 * self.hidden, 2, bias=False)  # rows i - 1 and i of a skewed column

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        gates = skew(self.gates(x, condition))  # left of the image gates are zero, and so states stay zero
        h = c = gates.new_zeros(len(x), self.hidden, x.shape[2])
        columns = []
        for column in gates.unbind(3):
            h, c = lstm(column + self.state(F.pad(h, (1, 0))), c)
            columns.append(h)
        return unskew(torch.stack(columns, 3), x.shape[3])


class DiagonalRow:
    """One direction one pixel at a time: `row` as a row begins, `pixel` along it, in the order of the direction."""

    def __init__(self, layer: Diagonal, n: int, width: int, condition: Tensor | None) -> None:
        self.inputs, self.bias = layer.gates.inputs, layer.gates.bias(condition)
        self.up, self.along = layer.state.weight.unbind(2)
        self.above = self.h = layer.state.weight.new_zeros(n, layer.hidden, width)
        self.beside = self.cell = self.h[:, :, 0]

    def row(self) -> None:
        self.above, self.h = self.h, torch.zeros_like(self.h)
        self.beside = self.cell = torch.zeros_like(self.beside)

    def pixel(self, j: int, x: Tensor) -> Tensor:
        gates = pixelwise(self.inputs, x) + self.bias + F.linear(self.above[:, :, j], self.up)
        self.beside, self.cell = lstm(gates + F.linear(self.beside, self.along), self.cell)
        self.h[:, :, j] = self.beside
        return self.beside


class DiagonalBiLSTM(nn.Module):
    """x + W (h_left + h_right): together they see every pixel before.

    Right to left, inputs move down by a row, since those of the own row have seen pixels to come. What they have not
    seen is the pixel at their own place, so `above`, features of the very pixels of the row above, is added: without it
    the first pixels of a row would not know the last one of the row before.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.left, self.right = Diagonal(width, condition), Diagonal(width, condition)
        self.up = nn.Conv2d(self.left.hidden, width, 1)

    def forward(self, x: Tensor, above: Tensor, condition: Tensor | None) -> Tensor:
        right = self.right((shifted(x, 1, 0) + above).flip(3), condition).flip(3)
        return x + self.up(self.left(x, condition) + right)

    def walk(self, n: int, width: int, condition: Tensor | None) -> LayerWalk:
        return DiagonalWalk(self, n, width, condition)


class DiagonalWalk:
    """A bidirectional layer one pixel at a time; right to left, a row is run as it begins."""

    def __init__(self, layer: DiagonalBiLSTM, n: int, width: int, condition: Tensor | None) -> None:
        self.layer = layer
        self.left, self.right = (DiagonalRow(d, n, width, condition) for d in (layer.left, layer.right))
        self.line = layer.up.weight.new_zeros(n, layer.up.out_channels, width)  # the input, of the row above at first

    def row(self, above: Tensor) -> None:
        self.left.row()
        self.right.row()
        for j in reversed(range(self.line.shape[2])):
            self.right.pixel(j, self.line[:, :, j] + above[:, :, j])

    def pixel(self, j: int, x: Tensor) -> Tensor:
        self.line[:, :, j] = x
        return x + pixelwise(self.layer.up, self.left.pixel(j, x) + self.right.h[:, :, j])


class RecurrentNetwork(Raster):
    """A masked convolution, then `depth` recurrent layers with residuals (section 3.3)."""

    def __init__(
        self, channels: int, width: int, depth: int, kind: RecurrentName, condition: int = 0, stem: int = 7
    ) -> None:
        super().__init__()
        self.features = width
        self.stem = MaskedConv2d(channels + 1, width, stem, itself=False)
        layer = {"diagonal": DiagonalBiLSTM, "row": RowLSTM}[kind]
        self.layers = nn.ModuleList(layer(width, condition) for _ in range(depth))
        self.above = nn.Conv2d(channels + 1, width, 1, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = with_ones(x)
        h, above = self.stem(x), self.above(shifted(x, 1, 0))
        for layer in self.layers:
            h = layer(h, above, condition)
        return h

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        stem = MaskedWalk(self.stem, n, width, self.stem.weight.new_zeros(1, self.features))
        layers = [layer.walk(n, width, condition) for layer in cast("Iterable[RowLSTM | DiagonalBiLSTM]", self.layers)]

        def row(above: Tensor) -> None:
            stem.row(above)
            features = F.conv1d(above, self.above.weight[:, :, 0])
            for layer in layers:
                layer.row(features)

        def pixel(j: int, left: Tensor) -> Tensor:
            h = stem.pixel(j, left)
            for layer in layers:
                h = layer.pixel(j, h)
            return h

        return by_rows(width, row, pixel)
