"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genrep import storage


class Average:
    """a <- d a + (1 - d) w after every update, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    The warm-up of d keeps the first, random weights from lasting for 1 / (1 - decay) updates. Buffers are taken as they
    are, because the average of a counter or of a table means nothing.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        live = storage.state(module)
        self.names = [k for k, v in live.items() if isinstance(v, nn.Parameter)]
        self._live = [live[k] for k in self.names]
        self.weights = [w.detach().clone() for w in self._live]

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.weights, [w.detach() for w in self._live], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by name; buffers are not averaged."""
        return dict(zip(self.names, self.weights, strict=True))

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, w in zip(self.names, self.weights, strict=True):
            w.copy_(tensors[name])

    @torch.no_grad()
    def into_live(self) -> None:
        """Give the module the averaged weights."""
        for live, w in zip(self._live, self.weights, strict=True):
            live.copy_(w)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights inside, the live ones again afterwards."""
        kept = [w.detach().clone() for w in self._live]
        self.into_live()
        try:
            yield
        finally:
            with torch.no_grad():
                for live, w in zip(self._live, kept, strict=True):
                    live.copy_(w)
