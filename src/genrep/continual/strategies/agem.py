"""Averaged gradient episodic memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genrep.continual.memory import Examples
from genrep.continual.penalty import check_one_player, loss, parameters
from genrep.continual.strategy import Phase, Setting, Strategy, stages
from genrep.contracts import Data


@torch.no_grad()
def project(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
    """g <- g - (g . r / r . r) r, in place, where g . r < 0; then g . r = 0 (Chaudhry et al., 2019, eq. 11)."""
    inner = torch.stack([(g * r).sum() for g, r in zip(gradient, reference, strict=True)]).sum()
    if inner >= 0:
        return
    size = torch.stack([r.square().sum() for r in reference]).sum()
    for g, r in zip(gradient, reference, strict=True):
        g -= inner / size * r


class Projected(Strategy):
    """No update may raise the loss on a batch of kept examples, to first order."""

    kept = ("model", "memory")

    def __init__(self, setting: Setting, size: int, batch: int) -> None:
        super().__init__()
        self.model, self.memory, self.batch = setting.make(), Examples(setting.spec, size), batch
        check_one_player(self.model, "agem")
        if batch < 1:
            raise ValueError(f"Expected a batch of at least one kept example, got {batch}.")

    def learn(self, task: int, data: Data) -> list[Phase]:
        def before(step: int) -> None:
            if not len(self.memory):
                return
            weights = [p for p in parameters(self.model) if p.grad is not None]
            found = torch.autograd.grad(loss(self.model, self.memory.draw(self.batch)), weights, allow_unused=True)
            reference = [torch.zeros_like(p) if r is None else r for p, r in zip(weights, found, strict=True)]
            project([p.grad for p in weights if p.grad is not None], reference)

        *first, last = stages(self.model, lambda: data, fit={"before_update": before})
        return [*first, last._replace(finish=lambda: self.memory.reservoir(data))]


def agem(setting: Setting, *, size: int = 500, batch: int = 128) -> Strategy:
    """A-GEM (Chaudhry et al., 2019): gradients are projected so that they do not work against kept examples.

    Args:
        size: Examples that are kept, a reservoir of all seen.
        batch: Of them, in each update.
    """
    return Projected(setting, size, batch)
