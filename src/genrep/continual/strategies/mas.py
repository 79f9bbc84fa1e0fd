"""Memory aware synapses."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.continual.penalty import Quadratic, check_one_player, sensitivity
from genrep.continual.strategy import Phase, Setting, Strategy, extended, needs
from genrep.contracts import Batch, Data, Model


def output(model: Model, batch: Batch) -> Tensor:
    """What a model says of x: logits of a classifier, else its reconstruction inside the domain."""
    x = model.domain.inward(batch.x)
    if "classify" in model.capabilities:
        return model.inference.label(x).logits
    likelihood = model.generative.get_submodule("likelihood")
    return likelihood(model.inference.latent(x, y=batch.y).mean, y=batch.y).mean


class Aware(Strategy):
    """Importance is how much the output moves with a weight; labels do not matter."""

    kept = ("model", "penalty")

    def __init__(self, setting: Setting, weight: float, examples: int) -> None:
        super().__init__()
        self.model = setting.make()
        if "classify" not in self.model.capabilities:
            needs(self.model, "reconstruct", "mas")
        check_one_player(self.model, "mas")
        self.penalty, self.examples = Quadratic(self.model, weight), examples

    def learn(self, task: int, data: Data) -> list[Phase]:
        def finish() -> None:
            found = sensitivity(
                self.model, data, self.examples, lambda b: output(self.model, b).square().sum(), of=torch.abs
            )
            self.penalty.decay_and_move(self.model, found)

        count = len(self.model.objectives)
        phases = [Phase(extended(self.model, stage, self.penalty), lambda: data) for stage in range(count)]
        return [*phases[:-1], phases[-1]._replace(finish=finish)]


def mas(setting: Setting, *, weight: float = 1.0, examples: int = 500) -> Strategy:
    """MAS (Aljundi et al., 2018): a penalty weighed by E |d ||f(x)||^2 / d theta|.

    f(x) are the logits of a classifier, of other models the reconstruction of x.

    Args:
        weight: Of the penalty.
        examples: Of a task on which importance is measured.
    """
    return Aware(setting, weight, examples)
