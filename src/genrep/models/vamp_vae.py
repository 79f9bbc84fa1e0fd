"""The variational autoencoder with the VampPrior."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable
from genrep.distributions.priors import VampPrior
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding, Rate


@recipe(family="autoencoder", reference="Tomczak & Welling (2018), arXiv:1705.07120")
def vamp_vae(
    data: DataSpec,
    *,
    latent: int = 16,
    components: int = 100,
    beta: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Variational autoencoder with p(z) = 1/K sum_k q(z | u_k): its own posterior at learnt pseudo-inputs u_k.

    Maximises E_q log p(x | z) - beta (log q(z | x) - log p(z)), the rate estimated by the draw that is decoded. Take
    K well below the number of examples: with a pseudo-input for each the prior is their aggregate posterior.

    Args:
        latent: Dimensions of z.
        components: K, pseudo-inputs; each step encodes them all.
        beta: Weight of the rate; above 1 it trades reconstruction for a simpler latent space.
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
        LatentVariable(VampPrior(posterior, data.shape, components), decoder),
        Inference(latent=posterior),
        Autoencoding(Rate(beta)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
