"""Masked dense networks: every unit sees a prefix of the values (MADE, Germain et al., 2015)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.chain import Chain, Step, as_example, in_order
from genrep.nets.levels import one_hot
from genrep.nets.masked_dense import MaskedLinear


class PrefixLinear(MaskedLinear):
    """A linear layer in which unit i reads input j where its degree is at least that of j.

    `degrees`: how many values a unit may see, (out,); `read`: how many an input has seen, (in,).
    """

    def __init__(self, read: Tensor, degrees: Tensor) -> None:
        super().__init__(read[None, :] <= degrees[:, None])
        with torch.no_grad():  # the scale of what a unit really reads
            self.weight *= (len(read) / self.mask.sum(1, keepdim=True).clamp_min(1)).sqrt()

    def part(self, rows: slice, x: Tensor) -> Tensor:
        """Some of the outputs from the first inputs; all that these rows read must be among them."""
        return F.linear(x, self.weight[rows, : x.shape[1]], self.bias[rows])


class MADE(Chain):
    """Dense layers of `width` units, each of a degree m in 0 ... D - 1: it sees the first m values, and the condition.

    h_1 = silu(W_1 x + U c), h_l = h_{l-1} + silu(W_l h_{l-1}), the parameters of value k from units of degree < k, with
    W_l[i, j] = 0 where m_i < m_j (eq. 12-13, degrees counted from 0 so that the first value can read the condition).
    `categories`: levels enter as one-hot vectors instead of as numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int,
        width: int,
        depth: int,
        outputs: int,
        condition: int = 0,
        *,
        categories: bool = True,
    ) -> None:
        super().__init__()
        size = math.prod(shape)
        self.shape, self.steps, self.levels, self.outputs, self.categories = shape, size, levels, outputs, categories
        self.each = levels if categories else 1  # inputs that a value takes
        seen = torch.arange(size)
        degrees = torch.arange(width) * size // width  # sorted, so that the units of a degree are a slice
        first = PrefixLinear((seen + 1).repeat_interleave(self.each), degrees)
        self.layers = nn.ModuleList([first, *[PrefixLinear(degrees, degrees) for _ in range(depth - 1)]])
        self.out = PrefixLinear(degrees, seen.repeat_interleave(outputs))
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.ends = torch.searchsorted(degrees, seen, right=True).tolist()  # units of degree <= k

    def _encode(self, values: Tensor) -> Tensor:
        return one_hot(values, self.levels).flatten(1) if self.categories else values

    def _bias(self, condition: Tensor | None) -> Tensor | float:
        if self.condition is None:
            return 0.0
        assert condition is not None
        return self.condition(condition)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        first, *others = self.layers
        h = F.silu(first(self._encode(in_order(x))) + self._bias(condition))
        for layer in others:
            h = h + F.silu(layer(h))
        return as_example(self.out(h).unflatten(1, (-1, self.outputs)), self.shape)

    def walk(self, n: int, condition: Tensor | None = None) -> Step:
        """Units of degree k are computed when value k is known, so that a whole sample costs one evaluation."""
        first, *others = cast("Iterable[PrefixLinear]", self.layers)
        bias = first.weight.new_zeros(n, first.out_features) + self._bias(condition)
        x = bias.new_zeros(n, first.in_features)
        hidden = [torch.zeros_like(bias) for _ in self.layers]
        k = 0

        def step(previous: Tensor) -> Tensor:
            nonlocal k
            if k:
                x[:, (k - 1) * self.each : k * self.each] = self._encode(previous.unsqueeze(1))
            new = slice(self.ends[k - 1] if k else 0, self.ends[k])
            hidden[0][:, new] = F.silu(first.part(new, x[:, : k * self.each]) + bias[:, new])
            for layer, below, h in zip(others, hidden[:-1], hidden[1:], strict=True):
                h[:, new] = below[:, new] + F.silu(layer.part(new, below[:, : new.stop]))
            k += 1
            return self.out.part(slice((k - 1) * self.outputs, k * self.outputs), hidden[-1][:, : new.stop])

        return step
