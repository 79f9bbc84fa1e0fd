"""Training on task after task without any care: the lower bound."""

from __future__ import annotations

from genrep.continual.strategy import Phase, Setting, Strategy, stages
from genrep.contracts import Data


class Finetune(Strategy):
    """The model goes on with the data at hand."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.model = setting.make()

    def learn(self, task: int, data: Data) -> list[Phase]:
        return stages(self.model, lambda: data)


def finetune(setting: Setting) -> Strategy:
    """Plain training on each task, from the weights that the last one left; what others must beat."""
    return Finetune(setting)
