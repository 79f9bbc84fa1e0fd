"""The bottleneck autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import Decoded
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.objectives.autoencoding import Autoencoding


@recipe(family="autoencoder", reference="Rumelhart, Hinton & Williams (1986); Hinton & Salakhutdinov (2006)")
def autoencoder(
    data: DataSpec,
    *,
    latent: int = 16,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
) -> Model:
    """Bottleneck autoencoder: z = encoder(x), trained on -log p(x | z) alone.

    It has no prior, so it encodes and decodes but cannot sample. With linear networks and a squared error it is
    principal component analysis (Baldi & Hornik, 1989).

    Args:
        latent: Dimensions of z.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
    """
    posterior, decoder = coder_pair(
        data, latent=latent, likelihood=likelihood, network=network, width=width, depth=depth, point=True
    )
    return Model(
        data,
        Decoded(decoder),
        Inference(latent=posterior),
        Autoencoding(),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
