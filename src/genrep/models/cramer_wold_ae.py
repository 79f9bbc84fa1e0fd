"""The Cramér-Wold autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.matching import Matching
from genrep.transport.cramer_wold import cramer_wold, cramer_wold_normal


@recipe(family="autoencoder", reference="Tabor et al. (2018), arXiv:1805.09235; Knop et al. (2020), JMLR 21")
def cramer_wold_ae(
    data: DataSpec,
    *,
    latent: int = 8,
    matching: float = 3000.0,
    likelihood: LikelihoodName = "squared_error",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 3.0,
) -> Model:
    """Cramér-Wold autoencoder: z = encoder(x), matched to N(0, I) by a distance in closed form.

    Minimises -log p(x | z) + matching d^2(q(z), N(0, I)); no draw of the prior is needed, except with a condition. The
    paper takes the logarithm of d^2, whose gradient grows without bound as the match gets better; this is d^2.

    Args:
        latent: Dimensions of z.
        matching: Weight of the divergence against the reconstruction error, a sum over values.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder and decoder read the label or condition, and (z, y) is matched in place of z.
        condition_scale: How far apart conditions are in that match, in units of z.
    """
    condition = condition_width(data, conditional)
    divergence = cramer_wold if condition else lambda z, prior: cramer_wold_normal(z)
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
        Autoencoding(Matching(divergence, matching, condition, condition_scale)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
