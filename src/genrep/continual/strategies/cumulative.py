"""Training on all data so far, going on from the last weights."""

from __future__ import annotations

from genrep.continual.memory import Examples
from genrep.continual.strategy import Phase, Setting, Strategy, renewed, stages
from genrep.contracts import Data


class Hoarder(Strategy):
    """Everything is kept, and counted."""

    kept = ("model", "memory")

    def __init__(self, setting: Setting, *, anew: bool) -> None:
        super().__init__()
        self.setting, self.anew = setting, anew
        self.model, self.memory = setting.make(), Examples(setting.spec, sum(setting.sizes))

    def learn(self, task: int, data: Data) -> list[Phase]:
        def start() -> None:
            self.memory.append(data)
            if self.anew:
                renewed(self.model, self.setting)

        first, *rest = stages(self.model, self.memory.data)
        return [first._replace(start=start), *rest]


def cumulative(setting: Setting) -> Strategy:
    """Each task trains on all data so far, from the weights that the last one left."""
    return Hoarder(setting, anew=False)
