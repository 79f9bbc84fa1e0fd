"""Flow matching: regression of a velocity field on straight paths between data and noise."""

from __future__ import annotations

from typing import Literal, cast

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.velocity import VelocityFlow
from genrep.objectives.timesteps import spread

CouplingName = Literal["independent", "optimal"]


class FlowMatching(Objective):
    """velocity: |v(x_t, t) - (eps - x)|^2 per value, x_t = (1 - t) x + t eps, t uniform (Lipman et al., 2023, eq. 23).

    optimal: noise is matched to data within the batch at least squared distance, which straightens the paths (Tong et
    al., 2024, section 3.2.3). Data with levels are dequantised.
    """

    terms = {"velocity": 1.0}

    def __init__(self, coupling: CouplingName = "independent") -> None:
        super().__init__(learns=("generative.velocity",))
        self.coupling = coupling

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        x = model.domain.continuous(batch.x)[0]
        noise = torch.randn_like(x)
        if self.coupling == "optimal":
            noise = matched(x, noise)
        t = spread(len(x), x.device)
        at = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        velocity = cast(VelocityFlow, model.generative).velocity
        found = velocity(torch.lerp(x, noise, at), t.float(), y=batch.y).mean
        return {"velocity": (found - (noise - x)).square().flatten(1).mean(1)}


def matched(x: Tensor, noise: Tensor) -> Tensor:
    """The noise in the order that has the least sum of squared distances to x; on the processor."""
    cost = torch.cdist(x.flatten(1), noise.flatten(1)).square()
    return noise[torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=x.device)]
