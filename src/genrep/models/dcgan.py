"""The deep convolutional generative adversarial network."""

from __future__ import annotations

from typing import Any

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.domains import domain_for
from genrep.distributions.heads import PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.nets.dcgan import generator_critic, lipschitz
from genrep.objectives.adversarial import Adversarial, Critic, LossName

_PLAYERS: dict[str, dict[str, Any]] = {
    "non_saturating": {
        "model": {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 0.0},
        "critic": {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 0.0},
    },
}
_PLAYERS["hinge"] = _PLAYERS["wasserstein_gp"] = {
    "model": {"lr": 1e-4, "betas": (0.0, 0.9), "weight_decay": 0.0},
    "critic": {"lr": 4e-4, "betas": (0.0, 0.9), "weight_decay": 0.0},
}


@recipe(family="adversarial", reference="Goodfellow et al. (2014), arXiv:1406.2661; Radford et al. (2016) for the networks")
def dcgan(
    data: DataSpec,
    *,
    latent: int = 64,
    loss: LossName = "non_saturating",
    penalty: float = 10.0,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """todo"""
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    condition = condition_width(data, conditional)
    generator, critic = generator_critic(
        data, latent=latent, network=network, width=width, depth=depth, condition=condition
    )
    if loss != "wasserstein_gp":
        critic = lipschitz(critic)
    return Model(
        data,
        LatentVariable(StandardNormal(latent), PointHead(generator, condition)),
        Inference(),
        Adversarial(Critic(critic, condition), loss, penalty),
        domain=domain_for(data),
        training={"ema": 0.999, "players": _PLAYERS[loss]},
    )
