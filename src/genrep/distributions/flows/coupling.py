"""Couplings: what a mask keeps decides how the rest is mapped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import Elementwise
from genrep.nets.coupling import DenseCoupling


class Coupling(Bijection):
    """z = x where `keep`, f(x; net(keep x, c)) elsewhere (RealNVP, eq. 9).

    log |det| is the sum of log f' over what is not kept. `keep`: bool, broadcastable to the event; `net`: (B, *event),
    (B, C) or None -> (B, element.size, *event).
    """

    keep: Tensor

    def __init__(self, keep: Tensor, net: nn.Module, element: Elementwise) -> None:
        super().__init__()
        self.register_buffer("keep", keep, persistent=False)
        self.net, self.element = net, element

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        z, log_slope = self.element(x, self._parameters_of(x, c))
        return self._merged(x, z, log_slope)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        x, log_slope = self.element.inverse(z, self._parameters_of(z, c))
        return self._merged(z, x, log_slope)

    def _parameters_of(self, x: Tensor, c: Tensor | None) -> Tensor:
        return self.net(torch.where(self.keep, x, 0), c).to(x.dtype)

    def _merged(self, kept: Tensor, mapped: Tensor, log_slope: Tensor) -> Mapped:
        return torch.where(self.keep, kept, mapped), torch.where(self.keep, 0, log_slope).flatten(1).sum(1)


class ColumnCoupling(Bijection):
    """The same for vectors; only the columns that move are computed: `net` maps those kept to their parameters."""

    order: Tensor
    back: Tensor

    def __init__(self, keep: Tensor, net: nn.Module, element: Elementwise) -> None:
        super().__init__()
        order = torch.cat([keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.kept, self.net, self.element = int(keep.sum()), net, element

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        kept, moved = self._parted(x)
        z, log_slope = self.element(moved, self.net(kept, c).to(x.dtype))
        return torch.cat([kept, z], 1)[:, self.back], log_slope.sum(1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        kept, moved = self._parted(z)
        x, log_slope = self.element.inverse(moved, self.net(kept, c).to(z.dtype))
        return torch.cat([kept, x], 1)[:, self.back], log_slope.sum(1)

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x[:, self.order]
        return x[:, : self.kept], x[:, self.kept :]


def column_coupling(
    columns: int, k: int, element: Elementwise, width: int, depth: int, condition: int, *, angles: bool = False
) -> Bijection:
    """The k-th coupling of a vector by halves of its columns; a single column depends on the condition alone."""
    keep, size = halves(columns, k), element.size
    if columns == 1:
        return Coupling(keep, DenseCoupling((1,), size, width, depth, condition, angles=angles), element)
    kept = int(keep.sum())
    net = DenseCoupling((kept,), size, width, depth, condition, moved=columns - kept, angles=angles)
    return ColumnCoupling(keep, net, element)


def halves(n: int, k: int) -> Tensor:
    """The k-th way to keep half of n values: pairs of complements, the first by halves, then by bits of the index.

    >>> [halves(4, k).int().tolist() for k in range(4)]
    [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]]

    A single value is never kept: its map then depends on the condition alone.
    """
    if n == 1:
        return torch.zeros(1, dtype=torch.bool)
    index, pattern = torch.arange(n), (k // 2) % (n - 1).bit_length()
    first = index < n // 2 if pattern == 0 else (index >> (pattern - 1)) % 2 == 0
    return first if k % 2 == 0 else ~first


def checkerboard(height: int, width: int, k: int) -> Tensor:
    """(1, H, W), true where row + column + k is even (RealNVP, figure 3)."""
    return ((torch.arange(height)[:, None] + torch.arange(width) + k) % 2 == 0).unsqueeze(0)
