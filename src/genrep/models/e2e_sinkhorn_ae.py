"""The end-to-end Sinkhorn autoencoder with a noise generator."""

from __future__ import annotations

from functools import partial

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoencoder import coder_pair
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable
from genrep.distributions.priors import NoiseGenerator, NoiseName
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.condition import condition_width
from genrep.nets.mlp import MLP
from genrep.nets.pyramid import laplacian
from genrep.objectives.autoencoding import Autoencoding, Penalty
from genrep.objectives.end_to_end import Diversity, Pyramid
from genrep.objectives.matching import Matching
from genrep.transport.sinkhorn import sinkhorn_divergence


@recipe(family="autoencoder", reference="Deja, Dubiński, Nowak, Wenzel & Trzciński (2020), arXiv:2006.06704")
def e2e_sinkhorn_ae(
    data: DataSpec,
    *,
    latent: int = 16,
    noise: int = 64,
    noise_law: NoiseName = "normal",
    noise_width: int = 256,
    noise_depth: int = 3,
    matching: float = 1.5,
    blur: float = 0.05,
    pyramid: float = 0.0,
    pyramid_levels: int = 3,
    diversity: float = 0.0,
    threshold: float = 0.5,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 5.0,
) -> Model:
    """End-to-end Sinkhorn autoencoder: z = encoder(x), and a noise generator n(eps) that learns where the codes are.

    Minimises -log p(x | z) + matching S(q(z), n(eps)) + diversity R(z) + pyramid L(x) over encoder, decoder and noise
    generator together; S is the debiased Sinkhorn divergence with cost |a - b|^2 / 2. With a condition only the noise
    generator reads y, and S compares (z, scale y) with (n(eps, y), scale y): the latent space itself stays free of y.

    Args:
        latent: Dimensions of z.
        noise: Dimensions of eps.
        noise_law: Law of eps: N(0, I), as published, or uniform in [0, 1), as in the authors' notebook.
        noise_width: Units of a hidden layer of the noise generator.
        noise_depth: Hidden layers of the noise generator.
        matching: Weight of S against the reconstruction error, a sum over values, in nats for a likelihood.
        blur: Square root of the entropic regularisation, a distance in z.
        pyramid: Weight of the Laplacian pyramid loss, images only; 0: none.
        pyramid_levels: Levels of the pyramid.
        diversity: Weight of the mean squared cosine of pairs of codes; 0: none.
        threshold: Cosine below which a pair counts as different.
        likelihood: p(x | z): squared_error, which is not a likelihood, as published; or with a learnt spread logistic
            (cells of a logistic distribution over the levels), bernoulli or gaussian; auto takes what fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: The noise generator reads the label or condition.
        condition_scale: How far apart conditions are in S, in units of z.
    """
    if min(noise, noise_width, noise_depth) < 1:
        raise ValueError(f"Expected noise, noise_width, noise_depth >= 1, got {noise}, {noise_width}, {noise_depth}.")
    if not blur > 0:
        raise ValueError(f"Expected blur > 0, got {blur}.")
    if pyramid and len(data.shape) != 3:
        raise ValueError(f"pyramid needs images (C, H, W), this data has shape {data.shape}; leave it 0.")
    if pyramid:
        laplacian(torch.empty(1, *data.shape), pyramid_levels)  # refuses levels that do not fit the image
    condition = condition_width(data, conditional)
    posterior, decoder = coder_pair(
        data, latent=latent, likelihood=likelihood, network=network, width=width, depth=depth, point=True
    )
    generator = MLP((noise,), [noise_width] * noise_depth, (latent,), condition)
    divergence = partial(sinkhorn_divergence, blur=blur)
    penalties: list[Penalty] = [Matching(divergence, matching, condition, condition_scale)]
    if pyramid:
        penalties.append(Pyramid(pyramid, pyramid_levels))
    if diversity:
        penalties.append(Diversity(diversity, threshold))
    return Model(
        data,
        LatentVariable(NoiseGenerator(generator, noise, noise_law, condition), decoder),
        Inference(latent=posterior),
        Autoencoding(*penalties),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3, "batch": 256},
    )
