"""Couplings: what a mask keeps decides how the rest is mapped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import Elementwise


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
