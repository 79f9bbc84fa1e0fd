"""The importance-weighted bound."""

from __future__ import annotations

import math

from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.objectives.autoencoding import inside


def repeated(t: Tensor, k: int) -> Tensor:
    """k copies, one after the other: (B, ...) -> (k B, ...)."""
    return t.expand(k, *t.shape).flatten(0, 1)


class ImportanceWeighted(Objective):
    """bound = -log 1/K sum_k w_k, w_k = p(x | z_k) p(z_k) / q(z_k | x), z_k ~ q (Burda et al., 2016, eq. 8).

    `elbo`, the mean of log w_k, is logged only: their difference is what the K draws gain.
    """

    terms = {"bound": 1.0, "elbo": 0.0}

    def __init__(self, draws: int) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"Expected draws >= 1, got {draws}.")
        self.draws = draws

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        prior, likelihood = (model.generative.get_submodule(name) for name in ("prior", "likelihood"))
        x, k = inside(model, batch), self.draws
        y = None if batch.y is None else repeated(batch.y, k)
        q = model.inference.latent(x, y=batch.y)
        z = q.rsample((k,))
        conditional = likelihood(z.flatten(0, 1), y=y).log_prob(repeated(x, k)).unflatten(0, (k, len(x)))
        log_w = conditional + prior(y=batch.y).log_prob(z) - q.log_prob(z)
        return {"bound": math.log(k) - log_w.logsumexp(0), "elbo": log_w.detach().mean(0)}
