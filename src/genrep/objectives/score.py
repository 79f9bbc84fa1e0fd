"""Training of score-based models with a state of several parts."""

from __future__ import annotations

from typing import cast

import torch

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.linear_sde import EARLIEST
from genrep.distributions.score import StateDiffusion
from genrep.objectives.timesteps import spread


class ScoreMatching(Objective):
    """noise: |eps - estimate|^2 per value over the parts that the reverse equation needs, t uniform in [1e-3, 1].

    The other parts of the state at the start are averaged out of the kernel (hybrid score matching, Dockhorn et al.,
    2022, section 3.2).
    """

    terms = {"noise": 1.0}

    def __init__(self) -> None:
        super().__init__(learns=("generative.noise",))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        estimate, x = cast(StateDiffusion, model.generative).noise, model.domain.continuous(batch.x)[0]
        t = EARLIEST + (1 - EARLIEST) * spread(len(x), x.device)
        z, noise = estimate.process.draw(x, t)
        error = (estimate(z.flatten(1, 2), t.float(), y=batch.y).mean - noise)[:, torch.tensor(estimate.told)]
        return {"noise": error.square().flatten(1).mean(1)}
