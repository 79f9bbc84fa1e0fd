"""Reconstruction measured in the features of a critic of images."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.latent import draws, rate
from genrep.nets.dcgan import ScoredFeatures
from genrep.objectives.adversarial import LOSSES, Critic, judged

_LOSS = LOSSES["non_saturating"]


class FeatureAutoencoding(Objective):
    """|h(x) - h(x')|^2 / 2 + rate + generator, with h the features of a critic and x' the reconstruction.

    The critic tells data from what the decoder makes of codes (half of a batch) and of draws of the prior (the rest).
    `generator` teaches the decoder alone to mislead it, the encoder learns from the other two terms, the critic from
    its own (Larsen et al., 2016, algorithm 1, with its balance gamma as the weight of `generator`).
    """

    terms = {"distortion": 1.0, "rate": 1.0, "generator": 1.0, "critic": 1.0, "accuracy": 0.0}
    turns = ("critic", "model")

    def __init__(self, net: ScoredFeatures, condition: int, *, beta: float, generator: float) -> None:
        if beta < 0 or generator < 0:
            raise ValueError(f"Expected beta and generator >= 0, got {beta} and {generator}.")
        super().__init__({"rate": beta, "generator": generator})
        self.critic = Critic(net, condition)
        self.learns["critic"] = ("objective.critic",)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        x, y = model.domain.inward(batch.x), batch.y
        prior, likelihood = (model.generative.get_submodule(name) for name in ("prior", "likelihood"))
        with torch.set_grad_enabled(player == "model"):
            q, p = model.inference.latent(x, y=y), prior(y=y)
            z = q.rsample()
            half = len(z) // 2
            fake = likelihood(torch.cat([z[:half].detach(), draws(p, len(z))[half:]]), y=y).mean
        if player == "critic":
            return judged(self.critic, _LOSS, x, fake, y)
        return {
            "distortion": self.distance(x, likelihood(z, y=y).mean),
            "rate": rate(q, p, z),
            "generator": _LOSS.generator(self.critic(fake, y)),
        }

    def distance(self, x: Tensor, other: Tensor) -> Tensor:
        """|h(x) - h(other)|^2 / 2, (B,): minus the log of N(h(x); h(other), I), but for its constant."""
        features = self.critic.net.get_submodule("features")
        with torch.no_grad():
            wanted = features(x)
        return 0.5 * (wanted - features(other)).float().square().flatten(1).sum(1)
