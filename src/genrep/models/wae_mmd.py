"""The Wasserstein autoencoder with maximum mean discrepancy."""

from __future__ import annotations

from functools import partial
from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.matching import Matching
from genrep.transport.mmd import mmd


@recipe(family="autoencoder", reference="Tolstikhin et al. (2018), arXiv:1711.01558, algorithm 2")
def wae_mmd(
    data: DataSpec,
    *,
    latent: int = 8,
    matching: float = 1000.0,
    kernel: Literal["imq", "rbf"] = "imq",
    likelihood: LikelihoodName = "squared_error",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 10.0,
) -> Model:
    """Wasserstein autoencoder: z = encoder(x), its distribution matched to N(0, I) by the maximum mean discrepancy.

    Minimises -log p(x | z) + matching MMD^2(q(z), p(z)), unbiased over the batch, which needs two examples.

    Args:
        latent: Dimensions of z.
        matching: Weight of the divergence against the reconstruction error, a sum over values.
        kernel: Inverse multiquadratic (imq) or Gaussian (rbf), each summed over seven widths.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder and decoder read the label or condition, and (z, y) is matched in place of z.
        condition_scale: How far apart conditions are in that match, in units of z.
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
    return Model(
        data,
        LatentVariable(StandardNormal(latent), decoder),
        Inference(latent=posterior),
        Autoencoding(Matching(partial(mmd, kernel=kernel, unbiased=True), matching, condition, condition_scale)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
