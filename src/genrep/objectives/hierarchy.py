"""The bound of hierarchical autoencoders, one rate for each level."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.hierarchy import Hierarchy
from genrep.objectives.autoencoding import inside


def level_weights(beta: Sequence[float], levels: int) -> list[float]:
    """One weight for each level from the top down; a single one stands for all.

    >>> level_weights((0.5,), 3)
    [0.5, 0.5, 0.5]
    """
    if len(beta) not in (1, levels) or min(beta, default=-1) < 0:
        raise ValueError(f"Expected beta >= 0, one for all or one for each of {levels} levels, got {tuple(beta)}.")
    return [float(b) for b in beta] * (levels if len(beta) == 1 else 1)


class LevelRates(Objective):
    """-log p(x | z) + sum_l beta_l rate_l with rate_l = KL(q(z_l | x, z_<l) || p(z_l | z_<l)), each (B,) nats.

    With every beta at 1 it is minus the evidence lower bound (Sønderby et al., 2016; Child, 2021). `rate` is the sum of
    the rates, unweighted, for the log.
    """

    def __init__(self, beta: Sequence[float]) -> None:
        self.terms = {"distortion": 1.0, "rate": 0.0} | {f"rate_{k + 1}": b for k, b in enumerate(beta)}
        super().__init__()

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        generative, x = model.generative, inside(model, batch)
        assert isinstance(generative, Hierarchy)
        walk, p = generative.coded(x, batch.y)
        rates = walk.rates
        named = {f"rate_{k + 1}": rate for k, rate in enumerate(rates)}
        return {"distortion": -p.log_prob(x), "rate": torch.stack(rates).sum(0), **named}
