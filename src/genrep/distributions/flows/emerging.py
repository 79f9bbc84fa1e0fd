"""Emerging convolutions: two autoregressive convolutions of opposite order."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Chain, Mapped
from genrep.distributions.flows.elementwise import bounded
from genrep.distributions.flows.root import contraction_root


class CausalConvolution(Bijection):
    """z = d (x + N x): a convolution whose taps N reach only values before, in raster order and then by channel.

    log |det| = H W sum_c log d_c. Each output weighs what it reads by less than one in all, N = raw / (1 + sum |raw|),
    so that I + N has an inverse whose norm is bounded whatever the parameters are; it is computed by the iteration
    x <- z / d - N x, exact after as many passes as there are values, and within rounding much earlier.
    d = exp(3 tanh(raw / 3)). `reverse`: from the last pixel and channel to the first. Shapes (B, C, H, W).
    """

    mask: Tensor

    def __init__(self, channels: int, kernel: int = 3, *, reverse: bool = False) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 1:
            raise ValueError(f"Expected an odd kernel, got {kernel}.")
        mask = torch.zeros(channels, channels, kernel * kernel)
        mask[:, :, : kernel * kernel // 2] = 1
        mask[:, :, kernel * kernel // 2] = torch.ones(channels, channels).tril(-1)
        mask = mask.flip(0, 1, 2) if reverse else mask
        self.register_buffer("mask", mask.unflatten(2, (kernel, kernel)), persistent=False)
        self.weight = nn.Parameter(0.01 * torch.randn_like(self.mask))
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(x.device.type, enabled=False):
            log_scale = bounded(self.scale, 3.0).to(x.dtype)
            return (x + self._reached(self._taps(x), x)) * log_scale.exp(), self._log_det(log_scale, x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(z.device.type, enabled=False):
            log_scale = bounded(self.scale, 3.0).to(z.dtype)
            x, self.passes = contraction_root(partial(self._reached, self._taps(z)), z * (-log_scale).exp())
            return x, self._log_det(-log_scale, z)

    def _taps(self, x: Tensor) -> Tensor:
        raw = self.weight * self.mask
        return (raw / (1 + raw.abs().sum((1, 2, 3), keepdim=True))).to(x.dtype)

    def _reached(self, taps: Tensor, x: Tensor) -> Tensor:
        return F.conv2d(x, taps, padding=taps.shape[2] // 2)

    def _log_det(self, log_scale: Tensor, x: Tensor) -> Tensor:
        return (log_scale.sum() * (x.shape[2] * x.shape[3])).expand(len(x))


def emerging(channels: int, kernel: int = 3) -> Chain:
    """Two causal convolutions of opposite order, which together reach in all directions (Hoogeboom et al., 2019)."""
    return Chain(CausalConvolution(channels, kernel), CausalConvolution(channels, kernel, reverse=True))
