"""Autoregressive flows over sequences of patches, with a causal transformer."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.distributions.flows.autoregressive import with_implicit_gradient
from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.elementwise import Elementwise
from genrep.nets.patch_transformer import PatchTransformer


class Patches(Bijection):
    """(C, H, W) -> (N, C p p): patches of p x p pixels in raster order; (D,) -> (D, 1)."""

    def __init__(self, shape: tuple[int, ...], patch: int) -> None:
        super().__init__()
        if len(shape) == 3 and (shape[1] % patch or shape[2] % patch):
            raise ValueError(f"Expected a patch that divides the image's sides, got {patch} for {shape[1:]}.")
        self.shape, self.patch = shape, patch

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        if len(self.shape) == 1:
            return x.unsqueeze(2), x.new_zeros(len(x))
        p = self.patch
        blocks = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # B, C, rows, p, columns, p
        return blocks.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        if len(self.shape) == 1:
            return z.squeeze(2), z.new_zeros(len(z))
        channels, height, width = self.shape
        p = self.patch
        blocks = z.reshape(len(z), height // p, width // p, channels, p, p)
        return blocks.permute(0, 3, 1, 4, 2, 5).reshape(len(z), *self.shape), z.new_zeros(len(z))

    def shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) == 1:
            return (shape[0], 1)
        return (shape[1] * shape[2] // self.patch**2, shape[0] * self.patch**2)


class PatchAutoregressive(Bijection):
    """z_n = f(x_n; net(x_<n, c)) patch by patch (TarFlow, Zhai et al., 2024): one pass forward; (B, N, P).

    The inverse takes one step for each patch, with the keys and values of those before kept; `passes` counts them. Its
    gradient is that of the implicit function. `reverse`: from the last patch to the first.
    """

    def __init__(self, net: PatchTransformer, element: Elementwise, *, reverse: bool = False) -> None:
        super().__init__()
        self.net, self.element, self.reverse = net, element, reverse

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        z, log_slope = self._mapped(x, c)
        return z, log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.no_grad():
            x, log_slope = self._walked(self._turned(z), c)
            x = self._turned(x)
        if not torch.is_grad_enabled():
            return x, log_slope.flatten(1).sum(1)
        x = with_implicit_gradient(lambda x: self._mapped(x, c), x, z, passes=z.shape[1])
        return x, -self._mapped(x, c)[1].flatten(1).sum(1)

    def _turned(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.reverse else x

    def _mapped(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._turned(x)
        z, log_slope = self.element(x, self.net(x, c).to(x.dtype))
        return self._turned(z), self._turned(log_slope)

    def _walked(self, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        step, before, found = self.net.walk(len(z), c), torch.zeros_like(z[:, 0]), []
        self.passes = z.shape[1]
        for n in range(z.shape[1]):
            before, log_slope = self.element.inverse(z[:, n], step(before).to(z.dtype))
            found.append((before, log_slope))
        x, log_slopes = (torch.stack(v, 1) for v in zip(*found, strict=True))
        return x, log_slopes
