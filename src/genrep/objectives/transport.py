"""Optimal transport between data and samples, without an encoder or a critic."""

from __future__ import annotations

import math

import torch

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.nets.condition import encode_condition
from genrep.objectives.matching import Divergence


class Transport(Objective):
    """D(data, samples), (), between a batch and at least `draws` samples of the model; its gradient moves the samples.

    Samples are as many for each example of the batch. With a `condition` of that width both sides carry scale * y as
    further coordinates, the samples' conditions being those of the batch, so that no mass is left over.

    Between finitely many points a divergence of optimal transport is not zero where the laws agree, and its least value
    over models is not at the law of the data: small batches favour samples that vary less (Bellemare et al., 2017).
    """

    terms = {"transport": 1.0}

    def __init__(self, divergence: Divergence, draws: int, condition: int = 0, scale: float = 1.0) -> None:
        super().__init__(learns=("generative",))
        if draws < 2:
            raise ValueError(f"Expected draws >= 2, got {draws}.")
        if condition and not scale > 0:
            raise ValueError(f"Expected condition_scale > 0, got {scale}.")
        self.divergence, self.draws, self.condition, self.scale = divergence, draws, condition, scale

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        x, y = model.domain.inward(batch.x).flatten(1), batch.y
        n = len(x) * math.ceil(self.draws / len(x))
        turn = torch.arange(n, device=x.device) % len(x)
        prior, likelihood = (model.generative.get_submodule(name) for name in ("prior", "likelihood"))
        chosen = None if y is None else y[turn]
        samples = likelihood(prior(y=chosen).sample((n,)), y=chosen).mean.flatten(1)
        if self.condition:
            c = self.scale * encode_condition(y, self.condition, x)
            x, samples = torch.cat([x, c], 1), torch.cat([samples, c[turn]], 1)
        return {"transport": self.divergence(samples, x)}
