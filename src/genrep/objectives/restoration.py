"""Training of cold diffusion."""

from __future__ import annotations

from typing import cast

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.cold import Cold
from genrep.objectives.timesteps import spread


class Restoration(Objective):
    """restoration: |x - R(D(x, t), t)| per value, t uniform (Bansal et al., 2022); end: what the degradation learns.

    Real values are restored by their squared error, because the absolute one would pull skewed columns to the median.
    """

    terms = {"restoration": 1.0, "end": 0.01}

    def __init__(self) -> None:
        super().__init__(learns=("generative.restorer", "generative.degradation"))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        cold, x = cast(Cold, model.generative), model.domain.inward(batch.x)
        t = 1 - spread(len(x), x.device)  # in (0, 1]: at 0 there is nothing to restore
        seed = cold.degradation.seed(x)
        error = cold.restorer(cold.degradation(x, t, seed), t.float(), y=batch.y).mean - x
        error = error.square() if model.data.levels is None else error.abs()
        terms = {"restoration": error.flatten(1).mean(1)}
        end = cold.degradation.loss(x)
        return terms if end is None else terms | {"end": end}
