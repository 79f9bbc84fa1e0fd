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
from genrep.objectives.adversarial import Adversarial, Critic, LossName, WassersteinGP

_ADAM: dict[str, Any] = {  # Radford et al. (2016), section 4; two time scales: Heusel et al. (2017); Gulrajani et al.
    "non_saturating": {"model": (2e-4, (0.5, 0.999)), "critic": (2e-4, (0.5, 0.999))},
    "hinge": {"model": (1e-4, (0.0, 0.9)), "critic": (4e-4, (0.0, 0.9))},
    "wasserstein_gp": {"model": (2e-4, (0.0, 0.9)), "critic": (2e-4, (0.0, 0.9))},
}


@recipe(family="adversarial", reference="Goodfellow et al. (2014), arXiv:1406.2661; Radford et al. (2016) for the nets")
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
    """Generative adversarial network: z ~ N(0, I), x = G(z), trained against a critic of data and samples.

    No likelihood and no encoder. The critic of the first two losses has spectral normalisation (Miyato et al., 2018);
    group normalisation in G replaces the paper's batch normalisation, so that an example does not depend on its batch.

    Args:
        latent: Dimensions of z.
        loss: non_saturating (Goodfellow et al.), hinge, or wasserstein_gp (Wasserstein distance with gradient penalty).
        penalty: Weight of the gradient penalty of wasserstein_gp.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels at the full size of the image, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Generator and critic read the label or condition.
    """
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    condition = condition_width(data, conditional)
    generator, net = generator_critic(
        data, latent=latent, network=network, width=width, depth=depth, condition=condition
    )
    if loss == "wasserstein_gp":
        objective = WassersteinGP(Critic(net, condition), penalty)
    else:
        objective = Adversarial(Critic(lipschitz(net), condition), loss)
    players = {player: {"lr": lr, "betas": betas, "weight_decay": 0.0} for player, (lr, betas) in _ADAM[loss].items()}
    return Model(
        data,
        LatentVariable(StandardNormal(latent), PointHead(generator, condition)),
        Inference(),
        objective,
        domain=domain_for(data),
        training={"ema": 0.999, "players": players},
    )
