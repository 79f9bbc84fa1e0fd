"""Masked dense networks: output i reads only the inputs before i."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.coupling import zeroed

CAP = 30.0  # of inputs: beyond, outputs stay what they are there


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is zero where `mask` (out, in) is."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    @property
    def masked(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.masked, self.bias)


class MaskedDense(nn.Module):
    """(B, D), (B, condition) or None -> (B, size, D), output i a function of the condition and of x_j, j before i.

    MADE (Germain et al., 2015, eqs. 12-13) with residual blocks; all hidden layers share their degrees, which rise from
    unit to unit and are spread over all values, so that adding layers keeps the order. `reverse`: from the last column
    to the first. The last layer starts at zero. Inputs are cut to [-30, 30], so that outputs are bounded for any x.
    """

    def __init__(
        self, values: int, size: int, width: int, depth: int, condition: int = 0, *, reverse: bool = False
    ) -> None:
        super().__init__()
        self.shape_out = (size, values)
        order = torch.arange(values).flip(0) if reverse else torch.arange(values)
        degree = torch.arange(width) * max(values - 1, 1) // width  # unit k reads the inputs of order <= degree
        self.order = order.tolist()  # of the columns; its own inverse
        self.ends = torch.searchsorted(degree, torch.arange(values)).tolist()  # units of degree < k come before ends[k]
        self.stem = MaskedLinear((order <= degree[:, None]).float() if values > 1 else torch.zeros(width, 1))
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        within = (degree <= degree[:, None]).float()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), MaskedLinear(within), nn.ReLU(inplace=True), MaskedLinear(within))
            for _ in range(depth)
        )
        self.head = MaskedLinear((degree < order[:, None]).float().repeat_interleave(size, 0))
        zeroed(self.head)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.stem(x.clamp(-CAP, CAP))
        if self.given is not None:
            assert c is not None
            h = h + self.given(c)
        for block in self.blocks:
            h = h + block(h)
        return self.head(F.relu_(h)).unflatten(1, self.shape_out[::-1]).mT  # outputs of a value lie side by side

    def walk(self, n: int, c: Tensor | None = None) -> Callable[[Tensor | None], tuple[int, Tensor]]:
        """The same, value by value, each step computing only what is new: a whole example costs one evaluation.

        The value before (n,), None at first -> the next column in order and its outputs (n, size). Without gradient.
        """
        return _Walk(self, n, c)


class _Walk:
    """Units of degree k - 1 are computed when value k - 1 is known; activations are kept as (units, n)."""

    def __init__(self, net: MaskedDense, n: int, c: Tensor | None) -> None:
        size, values = net.shape_out
        columns = torch.tensor(net.order, device=net.stem.weight.device)
        self.net, self.k = net, 0
        self.stem, self.bias = net.stem.masked[:, columns], net.stem.bias[:, None].expand(-1, n)
        if net.given is not None:
            assert c is not None
            self.bias = self.bias + net.given(c).T
        layers = [cast("MaskedLinear", layer) for block in net.blocks for layer in list(block.children())[1::2]]
        self.layers = [(layer.masked, layer.bias[:, None]) for layer in layers]
        self.head, self.head_bias = (
            t.unflatten(0, (values, size))[columns] for t in (net.head.masked, net.head.bias[:, None])
        )
        width = len(self.stem)
        self.x = self.bias.new_zeros(values, n)
        self.active = self.bias.new_zeros(len(layers) + 1, width, n)  # what each layer reads, the head last

    def __call__(self, before: Tensor | None) -> tuple[int, Tensor]:
        k = self.k
        if before is not None:
            self.x[k - 1] = before.clamp(-CAP, CAP)
            if (new := slice(self.net.ends[k - 1], self.net.ends[k])).stop > new.start:
                self._compute(new)
        end, self.k = self.net.ends[k], k + 1
        outputs = torch.addmm(self.head_bias[k], self.head[k, :, :end], self.active[-1, :end])
        return self.net.order[k], outputs.T

    def _compute(self, new: slice) -> None:
        h = torch.addmm(self.bias[new], self.stem[new, : self.k], self.x[: self.k])
        for i in range(0, len(self.layers), 2):
            inner = h
            for j in (i, i + 1):
                weight, bias = self.layers[j]
                torch.clamp_min(inner, 0.0, out=self.active[j, new])
                inner = torch.addmm(bias[new], weight[new, : new.stop], self.active[j, : new.stop])
            h = h + inner
        torch.clamp_min(h, 0.0, out=self.active[-1, new])
