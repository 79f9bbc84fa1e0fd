"""Greedy sampler and dumb learner."""

from __future__ import annotations

from genrep.continual.memory import Examples
from genrep.continual.strategy import Phase, Setting, Strategy, renewed, stages
from genrep.contracts import Data
from genrep.data.batches import InMemory


class Dumb(Strategy):
    """A balanced memory, and a model that is trained anew on nothing else."""

    kept = ("model", "memory")

    def __init__(self, setting: Setting, size: int) -> None:
        super().__init__()
        if not setting.spec.classes:
            raise ValueError("Strategy gdumb balances classes, and these data have no labels: name them, or told=task.")
        self.setting, self.model, self.memory = setting, setting.make(), Examples(setting.spec, size)

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)

        def start() -> None:
            self.memory.balance(data)
            renewed(self.model, self.setting)

        first, *rest = stages(self.model, self.memory.data)
        return [first._replace(start=start), *rest]


def gdumb(setting: Setting, *, size: int = 500) -> Strategy:
    """GDumb (Prabhu et al., 2020): examples are kept in balance of classes, the model learns from them alone, anew.

    Args:
        size: Examples that are kept.
    """
    return Dumb(setting, size)
