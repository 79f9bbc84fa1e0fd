"""Data that a frozen part computes: all at once, or, where few will be asked for, those of a batch when it is due."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genrep.contracts import Batch, DataSpec
from genrep.data.batches import InMemory

BLOCK = 1024  # examples in one pass without gradients


class Computed:
    """n examples, each a function of its number alone, so that both ways give the same up to rounding.

    make: (B,) int64 numbers -> a batch of those examples. It may read only what stays as it is while the data are used.
    """

    def __init__(self, n: int, make: Callable[[Tensor], Batch], spec: DataSpec) -> None:
        self.n, self.make, self.spec = n, make, spec
        self.memory: InMemory | None = None

    def __len__(self) -> int:
        return self.n

    @torch.no_grad()
    def all(self) -> InMemory:
        """Every example, in blocks."""
        x, y = zip(*(self.make(part) for part in torch.arange(self.n).split(BLOCK)), strict=True)
        return InMemory(torch.cat(x), torch.cat(y), self.spec)

    def expect(self, count: int) -> None:
        """Told how many examples will be asked for: where they are no fewer than there are, compute each now."""
        self.memory = self.all() if count >= self.n else None

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Batch:
        return self.make(index) if self.memory is None else self.memory[index]
