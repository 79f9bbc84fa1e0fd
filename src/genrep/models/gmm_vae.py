"""The variational autoencoder with a mixture of Gaussians as prior."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable
from genrep.distributions.priors import GaussianMixture
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding, Rate


@recipe(
    family="autoencoder",
    reference="Dilokthanakul et al. (2016), arXiv:1611.02648; Tomczak & Welling (2018), section 4, for this form",
)
def gmm_vae(
    data: DataSpec,
    *,
    latent: int = 16,
    components: int = 10,
    beta: float = 1.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Variational autoencoder with p(z) = sum_k w_k N(m_k, s_k), all learnt, in place of N(0, I).

    Maximises E_q log p(x | z) - beta (log q(z | x) - log p(z)), the rate estimated by the draw that is decoded.

    Args:
        latent: Dimensions of z.
        components: K, Gaussians of the prior.
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
        LatentVariable(GaussianMixture(latent, components), decoder),
        Inference(latent=posterior),
        Autoencoding(Rate(beta)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
