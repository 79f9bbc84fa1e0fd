"""Replay is a Data around a Data: part of every batch comes from elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genrep.continual.memory import Counts
from genrep.continual.strategy import frozen
from genrep.contracts import Batch, Data, Model, Unsupported
from genrep.data.binary import Redrawn

Draw = Callable[[int], Batch]


class Mixed:
    """Batches of data in which a share is replaced by draws of another source.

    Of n examples k come from the source, floor(share n + u) with u uniform in [0, 1), so E k = share n exactly. Noise
    is that of the update, from the global generator, so that a run that resumes sees the same batches.
    """

    def __init__(self, data: Data, draw: Draw, share: float, inward: Callable[[Tensor], Tensor] | None = None) -> None:
        """`inward`: what is done to the data so that they stand beside the draws."""
        if not 0 <= share < 1:
            raise ValueError(f"Expected a share of replayed examples in [0, 1), got {share}.")
        self.data, self.source, self.share, self.spec = data, draw, share, data.spec
        self.inward = inward

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Tensor) -> Batch:
        n = len(index)
        k = replayed(self.share, n)
        x, y = self.data.draw(index[k:]) if isinstance(self.data, Redrawn) else self.data[index[k:]]
        x = x if self.inward is None else self.inward(x)
        if not k:
            return Batch(x, y)
        old = self.source(k)
        x = torch.cat([x.to(old.x.device), old.x.to(x.dtype)])
        if y is None:
            return Batch(x, None)
        known = torch.full((k,), -1, device=x.device) if old.y is None else old.y.to(x.device)
        return Batch(x, torch.cat([y.to(x.device), known.to(y.dtype)]))


def replayed(share: float, n: int) -> int:
    """How many of n examples are replayed: floor(share n + u), u uniform in [0, 1) from the global generator."""
    return min(n, int(share * n + float(torch.rand(()))))


def check_share(share: float) -> None:
    """ValueError unless it is a share that `replay_share` understands."""
    if not 0 <= share < 1:
        raise ValueError(f"Expected share in [0, 1), 0 for the share of earlier examples among all, got {share}.")


def replay_share(share: float, seen: int, now: int) -> float:
    """The share asked for, or for 0 that of earlier examples among all, so that tasks weigh as they are large."""
    return share or seen / (seen + now)


class Memories:
    """Draws of a frozen copy of a model, on labels in the proportions seen where it reads some."""

    def __init__(self, model: Model, counts: Counts, **how: Any) -> None:
        self.model, self.how = frozen(model), how
        self.counts = copy.deepcopy(counts)

    def labels(self, n: int) -> Tensor | None:
        return self.counts.draw(n) if self.model.generative.reads_y else None

    def examples(self, n: int) -> Batch:
        """As the data hold them."""
        y = self.labels(n)
        return Batch(self.model.sample(n, condition=y, batch=max(n, 1), **self.how), y)

    @torch.no_grad()
    def pairs(self, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """z ~ p(z), the means of the likelihood there, inside the domain, and the labels."""
        y = self.model.condition(self.labels(n), n)
        generative: Any = self.model.generative
        prior = generative.prior(y=y)
        z = prior.sample() if prior.batch_shape else prior.sample((n,))
        return z, generative.likelihood(z, y=y).mean, y

    def coded(self, n: int) -> tuple[Tensor, Batch]:
        """z ~ p(z) and the means there as the data hold them, rounded to levels where there are some."""
        z, x, y = self.pairs(n)
        return z, Batch(self.model.domain.outward(x), y)

    def means(self, n: int) -> Batch:
        """The means: inside the domain, of real values as the data hold them."""
        _, x, y = self.pairs(n)
        return Batch(self.model.domain.outward(x) if self.model.data.levels is None else x, y)


def check_labels(model: Model, strategy: str) -> None:
    """Unsupported for a model that reads vectors, which nobody could draw without keeping them."""
    if model.generative.reads_y and not model.data.classes:
        raise Unsupported(
            f"Strategy {strategy} draws on labels, and this model reads a vector: set told=task, or choose strategy "
            "buffer, which keeps conditions with its examples."
        )
