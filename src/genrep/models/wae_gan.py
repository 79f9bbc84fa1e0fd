"""The Wasserstein autoencoder with a critic."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.nets.mlp import MLP
from genrep.objectives.adversarial import Critic
from genrep.objectives.latent_critic import AdversarialAutoencoding


@recipe(family="autoencoder", reference="Tolstikhin et al. (2018), arXiv:1711.01558, algorithm 1")
def wae_gan(
    data: DataSpec,
    *,
    latent: int = 8,
    matching: float = 10.0,
    likelihood: LikelihoodName = "squared_error",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Wasserstein autoencoder: z = encoder(x), its distribution matched to N(0, I) by a critic of the latent space.

    Minimises -log p(x | z) + matching softplus(-D(z)), in turns with the critic D, which learns log q(z) alone: the
    known log p(z) is added to its score.

    Args:
        latent: Dimensions of z.
        matching: Weight of misleading the critic against the reconstruction error, a sum over values.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder, decoder and critic read the label or condition.
    """
    condition = condition_width(data, conditional)
    posterior, decoder = coder_pair(
        data,
        latent=latent,
        likelihood=likelihood,
        network=network,
        width=width,
        depth=depth,
        condition=condition,
        point=True,
    )
    critic = Critic(MLP((latent,), [256, 256], (1,), condition), condition)
    adam = {"lr": 1e-3, "betas": (0.5, 0.999)}
    return Model(
        data,
        LatentVariable(StandardNormal(latent), decoder),
        Inference(latent=posterior),
        AdversarialAutoencoding(critic, matching, normal_prior=True),
        domain=likelihood_domain(data, likelihood),
        training={"players": {"model": adam, "critic": adam}},
    )
