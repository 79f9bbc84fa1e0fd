"""Invertible linear maps of channels or columns."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import bounded


class Linear(Bijection):
    """z = W x over the C channels of each position: an invertible 1 x 1 convolution, or a matrix for vectors.

    log |det| = positions * log |det W| (Glow, eqs. 9-11). `plain`: W is free; a W that is singular raises. `lu`:
    W = P L (U + diag(sign exp(s))) with unit-triangular L, strictly upper U and s = 6 tanh(raw / 6): always invertible,
    with a log-determinant that costs O(C). Both start at a random rotation, or at the identity.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(
        self, channels: int, kind: Literal["plain", "lu"] = "lu", start: Literal["rotation", "identity"] = "rotation"
    ) -> None:
        super().__init__()
        square = torch.linalg.qr(torch.randn(channels, channels)).Q if start == "rotation" else torch.eye(channels)
        self.kind = kind
        if kind == "plain":
            self.weight = nn.Parameter(square)
            return
        p, low, up = torch.linalg.lu(square)
        diagonal = up.diagonal()
        self.register_buffer("permutation", p)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(low.tril(-1)), nn.Parameter(up.triu(1))
        self.scale = nn.Parameter(6 * torch.atanh(diagonal.abs().log().clamp_min(-5.9) / 6))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(x.device.type, enabled=False):
            if self.kind == "plain":
                weight = self.weight.to(x.dtype)
                return _mix(weight, x), self._log_det(torch.linalg.slogdet(weight).logabsdet, x)
            low, up, log_scale = self._factors(x)
            return _mix(self.permutation.to(x.dtype) @ low @ up, x), self._log_det(log_scale.sum(), x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(z.device.type, enabled=False):
            flat = z.transpose(0, 1).flatten(1)
            if self.kind == "plain":
                weight = self.weight.to(z.dtype)
                x, log_det = torch.linalg.solve(weight, flat), torch.linalg.slogdet(weight).logabsdet
            else:
                low, up, log_scale = self._factors(z)
                y = torch.linalg.solve_triangular(low, self.permutation.T.to(z.dtype) @ flat, upper=False)
                x, log_det = torch.linalg.solve_triangular(up, y, upper=True), log_scale.sum()
            return x.unflatten(1, (len(z), *z.shape[2:])).transpose(0, 1), -self._log_det(log_det, z)

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = bounded(self.scale, 6.0).to(x.dtype)
        low = self.lower.to(x.dtype).tril(-1) + torch.eye(len(log_scale), dtype=x.dtype, device=x.device)
        return low, self.upper.to(x.dtype).triu(1) + torch.diag(self.sign.to(x.dtype) * log_scale.exp()), log_scale

    def _log_det(self, one: Tensor, x: Tensor) -> Tensor:
        if not self.training and not bool(one.isfinite()):
            raise ValueError("The matrix of this layer is singular, so it has no inverse; kind='lu' cannot become so.")
        return (one * math.prod(x.shape[2:])).expand(len(x))


def _mix(weight: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ij,bj...->bi...", weight, x)
