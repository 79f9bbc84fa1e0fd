"""Networks with a bounded Lipschitz constant, whatever their parameters are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bound = Callable[[Tensor, Tensor | None], Tensor]  # (x (B, *x), context (B, C) or None) -> (B, *x)
_SQUARINGS = 6


def spectral_bound(matrices: Tensor) -> Tensor:
    """An upper bound of the largest singular value of matrices (..., a, b), (...), by Gram iteration.

    |M|^(2^(n+1)) is the largest eigenvalue of (M*M)^(2^n), which its Frobenius norm bounds: n = 6 squarings come within
    a factor rank^(1/256) (Delattre et al., 2023). Differentiable.
    """
    adjoint = matrices.mH
    gram = matrices @ adjoint if matrices.shape[-2] <= matrices.shape[-1] else adjoint @ matrices
    log_scale = gram.new_zeros(gram.shape[:-2], dtype=gram.real.dtype)
    for _ in range(_SQUARINGS):
        norm = _frobenius(gram)
        gram = gram / norm[..., None, None]
        gram, log_scale = gram @ gram, 2 * (log_scale + norm.log())
    return ((log_scale + _frobenius(gram).log()) / 2 ** (_SQUARINGS + 1)).exp()


def _frobenius(matrices: Tensor) -> Tensor:
    return (torch.view_as_real(matrices) if matrices.is_complex() else matrices).square().flatten(
        matrices.ndim - 2
    ).sum(-1).clamp_min(1e-30).sqrt()  # fmt: skip


def convolution_bound(kernel: Tensor, height: int, width: int) -> Tensor:
    """An upper bound of the norm of a zero-padded convolution of H x W images: kernel (out, in, k, k) -> ().

    It is a compression of the circular convolution of (H + k - 1) x (W + k - 1) images, whose singular values are those
    of its Fourier transform at each frequency.
    """
    k = kernel.shape[-1]
    if k == 1:
        return spectral_bound(kernel[..., 0, 0])
    symbol = torch.fft.rfft2(kernel, s=(height + k - 1, width + k - 1))
    return spectral_bound(symbol.flatten(2).permute(2, 0, 1)).amax()


def smooth(h: Tensor) -> Tensor:
    """SiLU over 1.1: smooth, with a slope below one (LipSwish, Chen et al., 2019)."""
    return F.silu(h) / 1.1


class LipschitzNet(nn.Module, ABC):
    """x -> y of the same shape with |y(x) - y(x')| <= limit |x - x'|; layers act(gate W h + shift), the last linear.

    Each of the n weights is divided by max(1, bound of its norm / limit^(1/n)). With a context (time, condition) every
    hidden layer gets a shift and a gate in (0, 1) from it. The last layer starts at zero.
    """

    def __init__(self, weights: Sequence[Tensor], widths: Sequence[int], limit: float, context: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(torch.zeros(n) for n in widths)
        self.given = nn.ModuleList(nn.Linear(context, 2 * n) for n in widths[:-1]) if context else None
        self.limit = limit
        nn.init.zeros_(self.weights[-1])

    def bind(self, like: Tensor) -> Bound:
        """The network with its weights normalised once, for inputs shaped like this one (B, *x)."""
        each = self.limit ** (1 / len(self.weights))
        weights = [w / (self._bound_of(w, like) / each).clamp_min(1) for w in self.weights]
        weights = [w.to(like.dtype) for w in weights]
        biases = [b.to(like.dtype) for b in self.biases]

        def net(x: Tensor, context: Tensor | None) -> Tensor:
            h = x
            for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                if k:
                    h = smooth(h)
                h = self._through(weight, h)
                if self.given is not None and k < len(weights) - 1:
                    assert context is not None
                    layer = cast("nn.Linear", self.given[k])
                    given = F.linear(context.to(h.dtype), layer.weight.to(h.dtype), layer.bias.to(h.dtype))
                    shift, gate = given.reshape(len(h), -1, *[1] * (h.ndim - 2)).chunk(2, 1)
                    h = h * torch.sigmoid(gate + 2) + shift
                h = h + bias.view(-1, *[1] * (h.ndim - 2))
            return h

        return net

    @abstractmethod
    def _bound_of(self, weight: Tensor, like: Tensor) -> Tensor: ...

    @abstractmethod
    def _through(self, weight: Tensor, h: Tensor) -> Tensor: ...


class LipschitzDense(LipschitzNet):
    """(B, D) -> (B, D) with `depth` + 1 hidden layers of `width` units."""

    def __init__(self, columns: int, width: int, depth: int, limit: float, context: int = 0) -> None:
        sizes = [columns, *[width] * (depth + 1), columns]
        weights = [nn.Linear(i, o, bias=False).weight for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        super().__init__(weights, sizes[1:], limit, context)

    def _bound_of(self, weight: Tensor, like: Tensor) -> Tensor:
        return spectral_bound(weight)

    def _through(self, weight: Tensor, h: Tensor) -> Tensor:
        return F.linear(h, weight)


class LipschitzConv(LipschitzNet):
    """(B, C, H, W) -> the same: a 3 x 3 convolution, `depth` of 1 x 1, one of 3 x 3."""

    def __init__(self, channels: int, width: int, depth: int, limit: float, context: int = 0) -> None:
        sizes, kernels = [channels, *[width] * (depth + 1), channels], [3, *[1] * depth, 3]
        triples = zip(sizes[:-1], sizes[1:], kernels, strict=True)
        weights = [nn.Conv2d(i, o, k, bias=False).weight for i, o, k in triples]
        super().__init__(weights, sizes[1:], limit, context)

    def _bound_of(self, weight: Tensor, like: Tensor) -> Tensor:
        return convolution_bound(weight, *like.shape[2:])

    def _through(self, weight: Tensor, h: Tensor) -> Tensor:
        return F.conv2d(h, weight, padding=weight.shape[-1] // 2)
