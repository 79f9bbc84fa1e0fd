"""The Sinkhorn autoencoder."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch.nn.functional as F

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.distributions.priors import Hypersphere
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.matching import Matching
from genrep.transport.sinkhorn import sinkhorn_divergence


@recipe(family="autoencoder", reference="Patrini et al. (2019), arXiv:1810.01118")
def sinkhorn_ae(
    data: DataSpec,
    *,
    latent: int = 8,
    matching: float = 30.0,
    prior: Literal["normal", "hypersphere"] = "normal",
    blur: float = 0.05,
    likelihood: LikelihoodName = "squared_error",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 10.0,
) -> Model:
    """Sinkhorn autoencoder: z = encoder(x), matched to the prior by the debiased Sinkhorn divergence.

    Minimises -log p(x | z) + matching S(q(z), p(z)) with cost |a - b|^2 / 2.

    Args:
        latent: Dimensions of z.
        matching: Weight of the divergence against the reconstruction error, a sum over values.
        prior: N(0, I), or the uniform law on the unit sphere, onto which the codes are then normalised.
        blur: Square root of the entropic regularisation, a distance in z.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: Encoder and decoder read the label or condition, and (z, y) is matched in place of z.
        condition_scale: How far apart conditions are in that match, in units of z.
    """
    condition = condition_width(data, conditional)
    if not blur > 0:
        raise ValueError(f"Expected blur > 0, got {blur}.")
    posterior, decoder = coder_pair(
        data,
        latent=latent,
        likelihood=likelihood,
        network=network,
        width=width,
        depth=depth,
        condition=condition,
        point=True,
        onto=partial(F.normalize, dim=1) if prior == "hypersphere" else None,
    )
    return Model(
        data,
        LatentVariable(Hypersphere(latent) if prior == "hypersphere" else StandardNormal(latent), decoder),
        Inference(latent=posterior),
        Autoencoding(Matching(partial(sinkhorn_divergence, blur=blur), matching, condition, condition_scale)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
