"""The importance-weighted autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.importance import ImportanceWeighted


@recipe(family="autoencoder", reference="Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519")
def iwae(
    data: DataSpec,
    *,
    latent: int = 16,
    draws: int = 8,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Importance-weighted autoencoder: the model of the VAE, trained on the tighter bound of several draws.

    Maximises E log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound of log p(x) that grows with K.

    Args:
        latent: Dimensions of z.
        draws: K, draws of z for every example; the cost of decoding grows with it.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder and decoder read the label or condition.
    """
    posterior, decoder = coder_pair(
        data,
        latent=latent,
        likelihood=likelihood,
        network=network,
        width=width,
        depth=depth,
        condition=condition_width(data, conditional),
    )
    return Model(
        data,
        LatentVariable(StandardNormal(latent), decoder),
        Inference(latent=posterior),
        ImportanceWeighted(draws),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
