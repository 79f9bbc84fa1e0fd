"""The chain rule as a network: the parameters of p(x_k | x_1 ... x_{k-1}) for every value x_k of an example.

Values follow each other in raster order of the pixels, the channels of a pixel together; those of a vector, and the
characters of a text, as they stand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.raster import Raster

Step = Callable[[Tensor], Tensor]  # the value before (n,), anything at first, -> parameters (n, outputs) of the next


def in_order(x: Tensor) -> Tensor:
    """Values (B, *x) in the order of the chain, (B, D)."""
    return x.movedim(1, -1).flatten(1)


def as_example(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values (B, D, ...) in the order of the chain as examples (B, *shape, ...): the inverse of `in_order`."""
    return values.unflatten(1, (*shape[1:], shape[0])).movedim(len(shape), 1)


class Chain(nn.Module, ABC):
    """x (B, *shape) in [-1, 1] -> parameters (B, *shape, outputs), those of a value from the values before it."""

    shape: tuple[int, ...]
    steps: int  # sequential evaluations that a sample costs

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor: ...

    @abstractmethod
    def walk(self, n: int, condition: Tensor | None = None) -> Step:
        """The same parameters one value at a time for n examples, each step computing only what is new."""


class ChannelHead(nn.Module):
    """Parameters of p(x_c | earlier pixels, x_1 ... x_{c-1}) for every channel c of a pixel.

    features (B, F, H, W), x (B, C, H, W) -> (B, C, H, W, outputs). Each channel has hidden units of its own, which see
    the features and, through a mask, the channels before it.
    """

    mask: Tensor

    def __init__(self, features: int, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(features, channels * hidden, 1)
        self.earlier = nn.Conv2d(channels, channels * hidden, 1, bias=False) if channels > 1 else None
        self.out = nn.Conv2d(channels * hidden, channels * outputs, 1, groups=channels)
        self.channels, self.width, self.outputs = channels, hidden, outputs
        before = torch.ones(channels, channels).tril(-1).repeat_interleave(hidden, 0)
        self.register_buffer("mask", before[:, :, None, None], persistent=False)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        h = self.hidden(F.silu(features))
        if self.earlier is not None:
            h = h + F.conv2d(x, self.earlier.weight * self.mask)
        return self.out(F.silu(h)).unflatten(1, (self.channels, -1)).movedim(2, -1)

    def pixel(self, features: Tensor, earlier: Tensor, c: int) -> Tensor:
        """The same for channel c of one pixel from features (n, F) and its earlier channels (n, c): (n, outputs)."""
        units, rows = slice(c * self.width, (c + 1) * self.width), slice(c * self.outputs, (c + 1) * self.outputs)
        assert self.hidden.bias is not None
        assert self.out.bias is not None
        h = F.linear(F.silu(features), self.hidden.weight[units, :, 0, 0], self.hidden.bias[units])
        if self.earlier is not None:
            h = h + F.linear(earlier, self.earlier.weight[units, :c, 0, 0])
        return F.linear(F.silu(h), self.out.weight[rows, :, 0, 0], self.out.bias[rows])


class Pixelwise(Chain):
    """A network over pixels, then a head over the channels of each; a vector is an image of one row."""

    def __init__(self, shape: tuple[int, ...], net: Raster, hidden: int, outputs: int) -> None:
        super().__init__()
        self.shape, self.net = shape, net
        self.image = shape if len(shape) == 3 else (1, 1, *shape)
        self.steps = self.image[1] * self.image[2]
        self.head = ChannelHead(net.features, self.image[0], hidden, outputs)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        image = x.reshape(-1, *self.image)
        return self.head(self.net(image, condition), image).reshape(*x.shape, -1)

    def walk(self, n: int, condition: Tensor | None = None) -> Step:
        channels, height, width = self.image
        step = self.net.walk(n, height, width, condition)
        pixel = next(self.parameters()).new_zeros(n, channels)
        position, features = 0, pixel

        def walk(previous: Tensor) -> Tensor:
            nonlocal position, features
            c = position % channels
            if position:
                pixel[:, c - 1] = previous
            if c == 0:
                features = step(pixel.clone())
            position += 1
            return self.head.pixel(features, pixel[:, :c], c)

        return walk
