"""Learning without forgetting."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.continual.memory import Counts
from genrep.continual.strategy import Phase, Setting, Strategy, extended, frozen, needs
from genrep.contracts import Batch, Data, Model, Objective, Terms
from genrep.data.batches import InMemory


def soft_cross_entropy(told: Tensor, said: Tensor, temperature: float) -> Tensor:
    """-T^2 sum_c softmax(told / T)_c log softmax(said / T)_c, (B,) (Hinton et al., 2015, section 2)."""
    target = (told / temperature).softmax(1)
    return -(temperature**2) * (target * (said / temperature).log_softmax(1)).sum(1)


class Distillation(Objective):
    """New data, seen with the eyes of the classifier before the task, over the classes that it had met."""

    def __init__(self, weight: float, temperature: float) -> None:
        if not (weight > 0 and temperature > 0):
            raise ValueError(f"Expected weight > 0 and temperature > 0, got {weight} and {temperature}.")
        self.terms = {"distillation": weight}
        super().__init__(learns=())
        self.temperature = temperature
        self.teacher: tuple[Model, Tensor] | tuple[()] = ()  # in a tuple: no part of the phase's model

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if not self.teacher:
            return {}
        teacher, classes = self.teacher
        x = model.domain.inward(batch.x)
        with torch.no_grad():
            told = teacher.inference.label(x).logits[:, classes]
        return {"distillation": soft_cross_entropy(told, model.inference.label(x).logits[:, classes], self.temperature)}


class WithoutForgetting(Strategy):
    """Nothing of old data is kept but which classes there were."""

    kept = ("model", "counts")

    def __init__(self, setting: Setting, weight: float, temperature: float) -> None:
        super().__init__()
        self.model, self.counts = setting.make(), Counts(setting.spec)
        needs(self.model, "classify", "lwf")
        self.distillation = Distillation(weight, temperature)

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)

        def start() -> None:
            if self.counts.total:
                self.distillation.teacher = (frozen(self.model), self.counts.seen.nonzero()[:, 0])

        count = len(self.model.objectives)
        phases = [Phase(extended(self.model, s, self.distillation), lambda: data, start=start) for s in range(count)]
        return [*phases[:-1], phases[-1]._replace(finish=lambda: self.counts.add(data))]


def lwf(setting: Setting, *, weight: float = 1.0, temperature: float = 2.0) -> Strategy:
    """LwF (Li & Hoiem, 2018): the classifier is held to what it said of the new data before it learnt them.

    Args:
        weight: Of the distillation.
        temperature: Of its softmax.
    """
    return WithoutForgetting(setting, weight, temperature)
