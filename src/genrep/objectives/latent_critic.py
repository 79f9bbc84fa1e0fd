"""Codes against a critic of the latent space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.contracts import Batch, Model, Terms
from genrep.distributions.latent import draws
from genrep.objectives.adversarial import LOSSES, Critic, judged
from genrep.objectives.autoencoding import Autoencoding, Coded, Penalty, inside

_LOSS = LOSSES["non_saturating"]


class Misleading(Penalty):
    """softplus(-D(z)), (B,): codes that the critic D takes for draws of the prior."""

    def __init__(self, critic: nn.Module, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected matching >= 0, got {weight}.")
        self.terms, self.critic = {"matching": weight, "critic": 1.0, "accuracy": 0.0}, critic

    def forward(self, model: Model, coded: Coded) -> Terms:
        return {"matching": _LOSS.generator(self.critic(coded.z.flatten(1), coded.y))}


class WithNormalPrior(nn.Module):
    """critic(z) - |z|^2 / 2: the log-density of N(0, I), but for its constant, need not be learnt."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.critic(z, y) - 0.5 * z.square().flatten(1).sum(1)


class AdversarialAutoencoding(Autoencoding):
    """Reconstruction, and a critic that tells draws of the prior from codes: D = log(p(z) / q(z)) at its best.

    Its loss is then log 4 - 2 JS(p(z), q(z)) (Makhzani et al., 2016, section 2; Tolstikhin et al., 2018, algorithm 1).
    The critic reads y where the model is conditional, so that codes follow the prior for every y. `normal_prior`: log
    p(z) of N(0, I) is added to its score, as in the released code of Tolstikhin et al.
    """

    turns = ("critic", "model")

    def __init__(self, critic: Critic, weight: float, *, normal_prior: bool = False) -> None:
        judge = WithNormalPrior(critic) if normal_prior else critic
        super().__init__(Misleading(judge, weight))
        self.judge = judge
        self.learns["critic"] = ("objective.judge",)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if player == "model":
            return super().forward(model, batch)
        with torch.no_grad():
            codes = model.inference.latent(inside(model, batch), y=batch.y).rsample().flatten(1)
            prior = draws(model.generative.get_submodule("prior")(y=batch.y), len(codes)).flatten(1)
        return judged(self.judge, _LOSS, prior, codes, batch.y)
