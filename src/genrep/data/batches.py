"""Random access to examples: in memory, as a view, and in the order of training.

The batch of update k on rank r is a function of (seed, r, k): a run that stops and resumes sees the same batches, and
no loader has to be rewound.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Batch, Data, DataSpec


class InMemory:
    """Examples as tensors on one device; a batch is one gather.

    x: (N, *shape), integers or float32 as the data set holds them.
    y: None, (N,) int64 labels or (N, C) float32 conditions.
    """

    def __init__(self, x: Tensor, y: Tensor | None, spec: DataSpec) -> None:
        assert tuple(x.shape[1:]) == spec.shape, (x.shape, spec)
        assert y is None or len(y) == len(x), (y.shape, x.shape)
        self.x, self.y, self.spec = x, y, spec

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Batch:
        index = index.to(self.x.device)
        return Batch(self.x.index_select(0, index), None if self.y is None else self.y.index_select(0, index))

    def relabelled(self, y: Tensor | None, spec: DataSpec) -> InMemory:
        """The same examples with other labels."""
        return InMemory(self.x, y, spec)

    @property
    def nbytes(self) -> int:
        """Bytes that the examples take."""
        return self.x.nbytes + (0 if self.y is None else self.y.nbytes)

    def to(self, device: torch.device | str) -> InMemory:
        """The same examples on `device`; nothing is copied if they are there already."""
        return InMemory(self.x.to(device), None if self.y is None else self.y.to(device), self.spec)


class Subset:
    """The examples `index`, in that order, of other data; nothing is copied."""

    def __init__(self, data: Data, index: Tensor) -> None:
        self.data, self.index, self.spec = data, index, data.spec

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Batch:
        return self.data[self.index[index.to(self.index.device)]]


class Order:
    """Which examples the batch of an update holds: every example exactly once per epoch, on one of the ranks.

    Update k of rank r takes the positions p = (k * world + r) * batch + (0 ... batch - 1) of an endless sequence, in
    which epoch e = p // size is a random permutation of the data drawn from (seed, e). Batches cross the border of two
    epochs, so nothing is dropped and every batch is full.

    >>> order = Order(5, batch=2, seed=1)
    >>> sorted(torch.cat([order(k) for k in range(5)]).tolist())
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    def __init__(self, size: int, *, batch: int, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        if not 1 <= batch <= size:
            raise ValueError(f"Expected a batch of 1 to {size} examples, as many as the data has, got {batch}.")
        if not 0 <= rank < world:
            raise ValueError(f"Expected a rank in [0, {world}), got {rank}.")
        if seed < 0:
            raise ValueError(f"Expected a seed >= 0, got {seed}.")
        self.size, self.batch, self.rank, self.world, self.seed = size, batch, rank, world, seed
        self._epochs: dict[int, Tensor] = {}  # at most two: a batch that fits the data crosses one border

    def __call__(self, step: int) -> Tensor:
        """The indices of update `step`, (batch,) int64."""
        if step < 0:
            raise ValueError(f"Expected a step >= 0, got {step}.")
        start = (step * self.world + self.rank) * self.batch
        first, last = start // self.size, (start + self.batch - 1) // self.size
        self._epochs = {e: self._epochs[e] if e in self._epochs else self._permutation(e) for e in {first, last}}
        offset = start - first * self.size
        pair = [self._epochs[first][offset : offset + self.batch]]
        if last > first:
            pair.append(self._epochs[last][: offset + self.batch - self.size])
        return torch.cat(pair)

    def _permutation(self, epoch: int) -> Tensor:
        # SeedSequence mixes the pair: neighbouring seeds and epochs give unrelated streams
        mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0])
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(mixed))


def batch_indices(step: int, *, rank: int, world: int, batch: int, size: int, seed: int) -> Tensor:
    """The indices of one update; an `Order` gives the same and remembers the permutation of its epoch."""
    return Order(size, batch=batch, rank=rank, world=world, seed=seed)(step)
