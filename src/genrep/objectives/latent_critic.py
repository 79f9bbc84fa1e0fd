"""Codes against a critic of the latent space."""

from __future__ import annotations

import torch
from torch import nn

from genrep.contracts import Batch, Model, Terms
from genrep.distributions.latent import draws
from genrep.objectives.adversarial import LOSSES, judged
from genrep.objectives.autoencoding import Autoencoding, Coded, Penalty


class Misleading(Penalty):
    """softplus(-D(z)), (B,): codes that the critic D takes for draws of the prior."""

    def __init__(self, critic: nn.Module, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected matching >= 0, got {weight}.")
        self.terms, self.critic = {"matching": weight}, critic

    def forward(self, model: Model, coded: Coded) -> Terms:
        return {"matching": LOSSES["non_saturating"].generator(self.critic(coded.z.flatten(1), coded.y))}


class AdversarialAutoencoding(Autoencoding):
    """Reconstruction, and a critic that tells draws of the prior from codes: D -> log p(z) / q(z) at its best.

    The critic reads y where the model is conditional, so that codes follow the prior for every y. Its loss is at best
    log 4 - 2 JS(p(z), q(z)) (Makhzani et al., 2016, section 2; Tolstikhin et al., 2018, algorithm 1).
    """

    turns = ("critic", "model")

    def __init__(self, critic: nn.Module, weight: float) -> None:
        super().__init__(Misleading(critic, weight))
        self.terms |= {"critic": 1.0, "accuracy": 0.0}
        self.weights |= {"critic": 1.0, "accuracy": 0.0}
        self.critic = critic
        self.learns["critic"] = ("objective.critic",)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if player == "model":
            return super().forward(model, batch)
        with torch.no_grad():
            codes = model.inference.latent(model.domain.inward(batch.x), y=batch.y).rsample().flatten(1)
            prior = draws(model.generative.get_submodule("prior")(y=batch.y), len(codes)).flatten(1)
        return judged(self.critic, LOSSES["non_saturating"], prior, codes, batch.y)
