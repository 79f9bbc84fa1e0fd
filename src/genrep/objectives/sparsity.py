"""Sparse codes."""

from __future__ import annotations

import math

import torch

from genrep.contracts import Model, Terms
from genrep.objectives.autoencoding import Coded, Penalty


class Sparsity(Penalty):
    """sum_j KL(Bernoulli(rho) || Bernoulli(mean activation of unit j in the batch)), for codes in (0, 1), in nats.

    Lee, Ekanadham & Ng (2008) and Ng's lecture notes on sparse autoencoders (2011), section 3. Terms are () per batch.
    """

    def __init__(self, rho: float, weight: float) -> None:
        super().__init__()
        if not 0 < rho < 1:
            raise ValueError(f"Expected rho in (0, 1), the mean activation wanted, got {rho}.")
        if weight < 0:
            raise ValueError(f"Expected sparsity >= 0, got {weight}.")
        self.terms, self.rho = {"sparsity": weight, "activation": 0.0}, rho

    def forward(self, model: Model, coded: Coded) -> Terms:
        mean, rho = coded.z.flatten(1).mean(0), self.rho
        entropy = rho * math.log(rho) + (1 - rho) * math.log1p(-rho)
        cross = rho * torch.log(mean.clamp_min(1e-12)) + (1 - rho) * torch.log1p(-mean.clamp_max(1 - 1e-6))
        return {"sparsity": (entropy - cross).sum(), "activation": mean.detach().mean()}
