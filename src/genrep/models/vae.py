"""The variational autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding, Rate


@recipe(family="autoencoder", reference="Kingma & Welling (2014), arXiv:1312.6114; Higgins et al. (2017) for beta")
def vae(
    data: DataSpec,
    *,
    latent: int = 16,
    beta: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Variational autoencoder: z ~ N(0, I), x ~ p(x | z), q(z | x) = N(mean(x), std(x)).

    Maximises E_q log p(x | z) - beta KL(q(z | x) || p(z)); at beta = 1 a lower bound of log p(x).

    Args:
        latent: Dimensions of z.
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
        LatentVariable(StandardNormal(latent), decoder),
        Inference(latent=posterior),
        Autoencoding(Rate(beta)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
