"""Continual learning with hypernetworks."""

from __future__ import annotations

from typing import cast

from torch import nn

from genrep.continual.coders import check_coder, only
from genrep.continual.hypernetwork import HyperNetwork, Unchanged, Written
from genrep.continual.penalty import check_one_player
from genrep.continual.strategy import Phase, Setting, Strategy, extended
from genrep.contracts import Conditional, Data, Model
from genrep.distributions.latent import LatentVariable


class Hyper(Strategy):
    """A decoder for each task, all written by one network; the encoder is shared and not protected."""

    kept = ("models",)

    def __init__(self, setting: Setting, weight: float, code: int, hidden: int, chunk: int) -> None:
        super().__init__()
        base, self.weight = setting.make(), weight
        check_coder(base, "hypercl")
        check_one_player(base, "hypercl")
        prior, likelihood = (cast(Conditional, base.generative.get_submodule(k)) for k in ("prior", "likelihood"))
        size = sum(p.numel() for p in likelihood.parameters())
        self.hyper = HyperNetwork(size, setting.tasks, code=code, hidden=(hidden, hidden), chunk=chunk)
        self.models = nn.ModuleList(
            Model(
                base.data,
                LatentVariable(prior, Written(self.hyper, likelihood, task)),
                base.inference,
                only(base),
                domain=base.domain,
                training=base.training_options,
            )
            for task in range(setting.tasks)
        )
        self.model = self.model_for(0)
        Unchanged(self.hyper, weight, 0)  # so that a wrong weight is refused before anything is trained

    def model_for(self, task: int) -> Model:
        return cast(Model, self.models[task])

    def learn(self, task: int, data: Data) -> list[Phase]:
        held = Unchanged(self.hyper, self.weight, task)
        view = extended(self.model_for(task), 0, held)
        written = "generative.likelihood.hyper"
        paths = ("generative.prior", "inference", f"{written}.body", f"{written}.chunks", f"{written}.tasks.{task}")
        only(view).learns = {"model": paths}
        return [Phase(view, lambda: data, start=held.start)]


def hypercl(setting: Setting, *, weight: float = 0.1, code: int = 16, hidden: int = 64, chunk: int = 1000) -> Strategy:
    """HyperCL (von Oswald et al., 2020): a network writes the decoder of each task from a code that the task learns.

    L(x) + weight / t sum_{t' < t} |h(e_t') - h*(e_t')|^2 / 2, with h* the network as the task began.

    Args:
        weight: Of the squared change of what is written for earlier tasks, in units of each tensor's spread.
        code: Width of the codes of tasks and of chunks.
        hidden: Units of its two hidden layers.
        chunk: Weights that it writes at a time; its last layer has hidden x chunk weights.
    """
    return Hyper(setting, weight, code, hidden, chunk)
