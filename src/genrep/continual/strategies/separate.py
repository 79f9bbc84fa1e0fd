"""A model for each task."""

from __future__ import annotations

from typing import cast

from torch import nn

from genrep.continual.strategy import Phase, Setting, Strategy, stages
from genrep.contracts import Data, Model


class Separate(Strategy):
    """Nothing is shared, so nothing is forgotten and nothing gained."""

    kept = ("models",)

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.models = nn.ModuleList(setting.make() for _ in range(setting.tasks))
        self.model = self.model_for(0)

    def model_for(self, task: int) -> Model:
        return cast(Model, self.models[task])

    def learn(self, task: int, data: Data) -> list[Phase]:
        return stages(self.model_for(task), lambda: data)


def separate(setting: Setting) -> Strategy:
    """A model of its own for each task, from the same start; it has to be told the task."""
    return Separate(setting)
