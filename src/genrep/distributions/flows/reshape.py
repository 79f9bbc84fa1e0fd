"""Maps that only move values: log-determinant zero."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.distributions.flows.bijection import Bijection, Mapped


class Squeeze(Bijection):
    """(C, H, W) -> (4 C, H / 2, W / 2): each 2 x 2 block becomes channels (RealNVP, section 3.6).

    The four positions come in the order (0, 0), (1, 1), (0, 1), (1, 0), each with all C channels: the first half of the
    new channels is one colour of a checkerboard, the second half the other.
    """

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        self.shape_out(tuple(x.shape[1:]))
        corners = [x[..., i::2, j::2] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
        return torch.cat(corners, 1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        upper_left, lower_right, upper_right, lower_left = z.chunk(4, 1)
        upper = torch.stack([upper_left, upper_right], -1).flatten(-2)
        lower = torch.stack([lower_left, lower_right], -1).flatten(-2)
        return torch.stack([upper, lower], -2).flatten(-3, -2), z.new_zeros(len(z))

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise ValueError(f"Squeezing needs (C, H, W) with even H and W, got {shape}.")
        return (4 * shape[0], shape[1] // 2, shape[2] // 2)


class Flatten(Bijection):
    """(*shape) -> (D,)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        return z.unflatten(1, self.shape), z.new_zeros(len(z))

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (torch.Size(shape).numel(),)
