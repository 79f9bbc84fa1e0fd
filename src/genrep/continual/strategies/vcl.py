"""Variational continual learning."""

from __future__ import annotations

from typing import cast

from torch import nn

from genrep.continual.bayesian import WeightRate, randomise, weighted
from genrep.continual.coders import check_coder
from genrep.continual.penalty import check_one_player
from genrep.continual.strategy import Phase, Setting, Strategy, extended
from genrep.contracts import Data, Model, Unsupported


class Variational(Strategy):
    """A posterior over the weights of one decoder; each task has an encoder and a first layer of the decoder."""

    kept = ("models",)

    def __init__(self, setting: Setting, weight: float, std: float, prior_std: float) -> None:
        super().__init__()
        self.models = nn.ModuleList(setting.make() for _ in range(setting.tasks))
        self.model, self.weight, self.prior_std = self.model_for(0), weight, prior_std
        check_coder(self.model, "vcl")
        check_one_player(self.model, "vcl")
        if not prior_std > 0:
            raise ValueError(f"Expected prior_std > 0, got {prior_std}.")
        self.likelihood = self.model.generative.get_submodule("likelihood")
        _, *shared = weighted(self.likelihood)
        if not shared:
            raise Unsupported("Strategy vcl needs a decoder of two layers or more: its first belongs to a task.")
        for model in self.models:
            theirs = cast(Model, model).generative.get_submodule("likelihood")
            for path in shared:
                theirs.set_submodule(path, self.likelihood.get_submodule(path))
        randomise([self.likelihood.get_submodule(path) for path in shared], std)
        WeightRate(self.likelihood, weight)  # so that a wrong weight is refused before anything is trained

    def model_for(self, task: int) -> Model:
        return cast(Model, self.models[task])

    def learn(self, task: int, data: Data) -> list[Phase]:
        rate = WeightRate(self.likelihood, self.weight, len(data))
        view = extended(self.model_for(task), 0, rate)
        return [Phase(view, lambda: data, start=lambda: rate.start_from(None if task else self.prior_std))]


def vcl(setting: Setting, *, weight: float = 0.1, std: float = 0.001, prior_std: float = 0.1) -> Strategy:
    """VCL (Nguyen et al., 2018): q(w) of the decoder, whose prior in each task is q(w) after the last.

    Minimises E_q(w) of the model's loss + weight KL(q(w) || q_before(w)) / n, n the examples of the task. Encoder and
    first layer of the decoder are a task's own; samples use the means of w.

    Args:
        weight: Of the divergence. 1 is the bound; below, the posterior is a cold one, which networks that have more
            weights than a task has pixels need.
        std: Standard deviation of q(w) at the start.
        prior_std: Of p(w) = N(0, prior_std) in the first task.
    """
    return Variational(setting, weight, std, prior_std)
