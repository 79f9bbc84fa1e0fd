"""Invertible maps with a known change of volume, and how they compose."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Mapped = tuple[Tensor, Tensor]  # the image (B, *event) and log |d image / d input|, (B,) nats


class Bijection(nn.Module, ABC):
    """z = f(x; c) with its inverse, both (B, *event); c is an encoded condition (B, C) or None.

    Both directions give the logarithm of the absolute Jacobian determinant of the map that they compute, so that the
    two add to zero. Examples never depend on each other in eval mode. Layers compute in the dtype of their input:
    what networks return under autocast is cast back first.
    """

    passes = 1  # of its network that the last inverse took, one after the other
    exact = True  # whether the log-determinant is so in eval mode, not an unbiased estimate

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped: ...

    @abstractmethod
    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped: ...

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the event of z; a ValueError for a shape of x that does not fit."""
        return shape


class Chain(Bijection):
    """f = f_n o ... o f_1; log-determinants add."""

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x, c)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            assert isinstance(layer, Bijection)
            z, log_det = layer.inverse(z, c)
            total = total + log_det
        return z, total

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            assert isinstance(layer, Bijection)
            shape = layer.shape_out(shape)
        return shape


class Multiscale(Bijection):
    """Levels in turn; after each but the last, the second half of the channels leaves for z (RealNVP, section 3.6).

    (B, C, H, W) -> (B, C H W): what left first comes first. The half that leaves may have been transformed given the
    half that stays, by a coupling at the end of the level; that is Glow's learnt prior of the split.

    >>> from genrep.distributions.flows.reshape import Squeeze
    >>> Multiscale((1, 4, 4), Squeeze(), Squeeze()).pieces
    [(2, 2, 2), (8, 1, 1)]
    """

    def __init__(self, shape: tuple[int, ...], *levels: Bijection) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.pieces: list[tuple[int, ...]] = []
        for k, level in enumerate(levels):
            shape = level.shape_out(shape)
            if k < len(levels) - 1:
                if shape[0] % 2:
                    raise ValueError(f"Expected an even number of channels to split, got {shape[0]} after level {k}.")
                shape = (shape[0] // 2, *shape[1:])
            self.pieces.append(shape)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        total, left = x.new_zeros(len(x)), []
        for k, level in enumerate(self.levels):
            x, log_det = level(x, c)
            total = total + log_det
            if k < len(self.levels) - 1:
                x, leaves = x.chunk(2, 1)
                left.append(leaves.flatten(1))
        return torch.cat([*left, x.flatten(1)], 1), total

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        total = z.new_zeros(len(z))
        parts = [part.unflatten(1, s) for part, s in zip(z.split(self._sizes(), 1), self.pieces, strict=True)]
        x = parts.pop()
        for k, level in reversed(list(enumerate(self.levels))):
            assert isinstance(level, Bijection)
            x, log_det = level.inverse(x if k == len(self.levels) - 1 else torch.cat([x, parts[k]], 1), c)
            total = total + log_det
        return x, total

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape),)

    def _sizes(self) -> Sequence[int]:
        return [math.prod(shape) for shape in self.pieces]
