"""The sliced Wasserstein autoencoder."""

from __future__ import annotations

from functools import partial

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.matching import Matching
from genrep.transport.sliced import sliced_wasserstein


@recipe(family="autoencoder", reference="Kolouri et al. (2019), arXiv:1804.01947, eq. 16")
def swae(
    data: DataSpec,
    *,
    latent: int = 8,
    matching: float = 30.0,
    directions: int = 50,
    likelihood: LikelihoodName = "squared_error",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 3.0,
) -> Model:
    """Sliced Wasserstein autoencoder: z = encoder(x), matched to N(0, I) along random directions.

    Minimises -log p(x | z) + matching * mean over directions of W_2^2 of the projections.

    Args:
        latent: Dimensions of z.
        matching: Weight of the divergence against the reconstruction error, a sum over values.
        directions: Random directions drawn for every batch.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder and decoder read the label or condition, and (z, y) is matched in place of z.
        condition_scale: How far apart conditions are in that match, in units of z.
    """
    condition = condition_width(data, conditional)
    if directions < 1:
        raise ValueError(f"Expected directions >= 1, got {directions}.")
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
    return Model(
        data,
        LatentVariable(StandardNormal(latent), decoder),
        Inference(latent=posterior),
        Autoencoding(
            Matching(partial(sliced_wasserstein, directions=directions), matching, condition, condition_scale)
        ),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
