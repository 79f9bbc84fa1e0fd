"""What networks over pixels in raster order share: the contract and exact caches.

Pixels are read row by row, left to right. A feature of pixel i is a function of the pixels before it alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Walk = Callable[[Tensor], Tensor]  # the previous pixel (n, C), zeros at first, -> features (n, F) of the next one


class Raster(nn.Module, ABC):
    """Features (B, features, H, W) of images (B, C, H, W) in [-1, 1]: those at a pixel see only the pixels before it.

    `condition`, (B, width) or None, is seen everywhere.
    """

    features: int

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor: ...

    @abstractmethod
    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        """The same features one pixel at a time for n images, each step computing only what is new."""


def with_ones(x: Tensor) -> Tensor:
    """A channel of ones beside x, (B, C + 1, ...): padding is zero there, so that a border differs from grey."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """The image moved by whole pixels, zeros coming in, at its own size."""
    height, width = x.shape[2:]
    return F.pad(x, (right, 0, down, 0))[:, :, :height, :width]


class RowCache:
    """A convolution over the last R rows of a feature map, one new row at a time: weight (out, C, R, k)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, n: int, width: int) -> None:
        self.weight, self.bias = weight, bias
        self.rows = weight.new_zeros(n, weight.shape[1], weight.shape[2], width)

    def __call__(self, row: Tensor) -> Tensor:
        """Push a row (n, C, W); the convolution at that row, (n, out, W)."""
        self.rows = torch.cat([self.rows[:, :, 1:], row.unsqueeze(2)], 2)
        return F.conv2d(self.rows, self.weight, self.bias, padding=(0, self.weight.shape[3] // 2)).squeeze(2)


class ColumnCache:
    """A convolution over the last T columns of the current row, one new pixel at a time: weight (out, C, T)."""

    def __init__(self, weight: Tensor, n: int, width: int) -> None:
        out, channels, self.taps = weight.shape
        self.weight = weight.permute(2, 1, 0).reshape(self.taps * channels, out).contiguous()
        self.columns = weight.new_zeros(n, self.taps - 1 + width, channels)  # the first taps - 1 stay zero: padding

    def __call__(self, j: int, pixel: Tensor, base: Tensor) -> Tensor:
        """Push the pixel (n, C) of column j; base + the convolution there, (n, out)."""
        self.columns[:, self.taps - 1 + j] = pixel
        return torch.addmm(base, self.columns[:, j : j + self.taps].flatten(1), self.weight)

    def row(self) -> Tensor:
        """The whole row as it was pushed, (n, C, W)."""
        return self.columns[:, self.taps - 1 :].transpose(1, 2)


def by_rows(width: int, row: Callable[[Tensor], None], pixel: Callable[[int, Tensor], Tensor]) -> Walk:
    """A walk from two steps: `row`(the row above (n, C + 1, W)) as a row begins, `pixel`(j, the pixel left of j).

    Both read the image with its channel of ones; outside of it there are zeros.
    """
    position, line = 0, torch.empty(0)

    def step(previous: Tensor) -> Tensor:
        nonlocal position, line
        j, left = position % width, with_ones(previous)
        if position == 0:
            line = left.new_zeros(*left.shape, width)
        else:
            line[:, :, j - 1] = left
        if j == 0:
            row(line)
            left = torch.zeros_like(left)
        position += 1
        return pixel(j, left)

    return step
