"""Stored examples of earlier tasks, and counters of what was seen: fixed shapes, counted to the last byte."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.contracts import Batch, Data, DataSpec
from genrep.data.batches import InMemory


class Counts(nn.Module):
    """How many training examples of each class were seen, (max(C, 1),) int64; of data without labels how many."""

    seen: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(max(spec.classes, 1), dtype=torch.int64))

    def add(self, data: InMemory) -> None:
        if data.spec.classes and data.y is not None:
            self.seen += data.y[data.y >= 0].bincount(minlength=len(self.seen))
        else:
            self.seen += len(data)

    @property
    def total(self) -> int:
        return int(self.seen.sum())

    def draw(self, n: int) -> Tensor:
        """n labels in the proportions seen, (n,) int64, from the global generator."""
        return torch.multinomial(self.seen.float(), n, replacement=True)


class Examples(nn.Module):
    """Room for `capacity` examples as the data hold them, with their labels or conditions."""

    x: Tensor
    y: Tensor | None
    filled: Tensor
    seen: Tensor

    def __init__(self, spec: DataSpec, capacity: int) -> None:
        super().__init__()
        if capacity < 1:
            raise ValueError(f"Expected room for at least one example, got {capacity}.")
        kind = torch.float32 if spec.levels is None else torch.uint8 if spec.levels <= 256 else torch.int64
        self.spec, self.capacity = spec, capacity
        self.register_buffer("x", torch.zeros(capacity, *spec.shape, dtype=kind))
        labels = torch.full((capacity,), -1) if spec.classes else torch.zeros(capacity, spec.condition)
        self.register_buffer("y", labels if spec.classes or spec.condition else None)
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.filled)

    def put(self, slots: Tensor, data: Data, index: Tensor) -> None:
        """Write those examples into those slots, which differ."""
        if len(slots):
            x, y = data[index]
            self.x[slots.to(self.x.device)] = x.to(self.x)
            if self.y is not None:
                assert y is not None
                self.y[slots.to(self.y.device)] = y.to(self.y)

    def append(self, data: Data) -> None:
        """Store all of them; there is room, or it is a fault of ours."""
        start, n = len(self), len(data)
        assert start + n <= self.capacity, (start, n, self.capacity)
        self.put(torch.arange(start, start + n), data, torch.arange(n))
        self.filled += n
        self.seen += n

    def reservoir(self, data: Data) -> None:
        """Every example seen so far is stored with the same probability, capacity / seen (Vitter, 1985, algorithm R).

        Example number k takes slot k while there is room, then a slot drawn from 0 ... k if that exists.
        """
        n, start = len(data), int(self.seen)
        order = torch.randperm(n)
        number = torch.arange(start, start + n)
        drawn = (torch.rand(n, dtype=torch.float64) * (number + 1)).long()
        slot = torch.where(number < self.capacity, number, drawn)
        last: dict[int, int] = {}  # a later example overwrites an earlier one
        for i, s in enumerate(slot.tolist()):
            if s < self.capacity:
                last[s] = i
        self.put(torch.tensor(list(last)), data, order[torch.tensor(list(last.values()), dtype=torch.int64)])
        self.seen += n
        self.filled.fill_(min(self.capacity, start + n))

    def balance(self, data: InMemory) -> None:
        """Greedy sampling that keeps classes equally large (Prabhu et al., 2020, algorithm 1).

        An example comes in while its class holds less than capacity / classes seen; if all is full, an example of the
        largest class, drawn at random, goes.
        """
        assert self.y is not None
        assert data.y is not None
        order = torch.randperm(len(data))
        held: dict[int, list[int]] = {}  # slots by class
        for s, c in enumerate(self.y[: len(self)].tolist()):
            held.setdefault(c, []).append(s)
        source, count = dict[int, int](), len(self)
        chance = torch.rand(len(data), dtype=torch.float64).tolist()
        for i, c, u in zip(order.tolist(), data.y[order].tolist(), chance, strict=True):
            mine = held.setdefault(c, [])
            if len(mine) >= self.capacity // len(held):
                continue
            if count < self.capacity:
                slot, count = count, count + 1
            else:
                largest = max(held.values(), key=len)
                slot = largest.pop(int(u * len(largest)))
            mine.append(slot)
            source[slot] = i
        self.put(torch.tensor(list(source)), data, torch.tensor(list(source.values()), dtype=torch.int64))
        self.filled.fill_(count)
        self.seen += len(data)

    def data(self) -> InMemory:
        """What is stored, as a data set."""
        n = len(self)
        return InMemory(self.x[:n].clone(), None if self.y is None else self.y[:n].clone(), self.spec)

    def draw(self, n: int) -> Batch:
        """n stored examples at random, with repetition, from the global generator."""
        index = torch.randint(len(self), (n,)).to(self.x.device)
        return Batch(self.x[index], None if self.y is None else self.y[index])
