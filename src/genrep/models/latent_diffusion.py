"""Diffusion in the latent space of an autoencoder."""

from __future__ import annotations

import math
from typing import Literal

from genrep.contracts import Conditional, DataSpec, Inference, Model
from genrep.distributions.codes import Quantiser
from genrep.distributions.diffusion import Prediction
from genrep.distributions.heads import GaussianHead, Likelihood, LikelihoodName, likelihood_domain
from genrep.distributions.nested import LatentDiffusion, Nested
from genrep.distributions.standardise import StandardUnits
from genrep.models import recipe
from genrep.models.ddpm import ddpm
from genrep.nets.autoencoder import NetworkName
from genrep.nets.codebook import Codebook
from genrep.nets.grid import grid_coders
from genrep.objectives.autoencoding import Autoencoding, StandardRate
from genrep.objectives.codes import Commitment
from genrep.objectives.latents import Measured, read_latents
from genrep.objectives.within import Within


@recipe(family="diffusion", reference="Rombach et al. (2022), arXiv:2112.10752; Vahdat et al. (2021), arXiv:2106.05931")
def latent_diffusion(
    data: DataSpec,
    *,
    regularisation: Literal["kl", "vq"] = "kl",
    latent: int = 0,
    beta: float = 0.1,
    codebook: int = 256,
    commitment: float = 0.25,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    timesteps: int = 250,
    prediction: Prediction = "v",
    prior_width: int = 0,
    prior_blocks: int = 0,
    conditional: bool = False,
    unconditional: float = 0.0,
) -> Model:
    """Latent diffusion: an autoencoder to a small map z, then a diffusion model of z in standard units.

    Stage 1 minimises -log p(x | z) and, for kl, beta KL(q(z | x) || N(0, I)), for vq the commitment of z to a codebook
    that the decoder reads. Stage 2 trains a `ddpm` on z, with all else held still. For kl, log p(x) >=
    E_q[log p(x | z) + bound of log p(z) - log q(z | x)]; with the decoder's entries, vq has no bound.

    Args:
        regularisation: What bounds the information in z: kl to N(0, I), or vq, the entries of a codebook.
        latent: Channels of z, or its dimensions for vectors; 0: 4 or 16.
        beta: Weight of the rate in stage 1, for kl; small, because the diffusion model takes over as prior.
        codebook: Entries, for vq.
        commitment: Weight of the commitment term, for vq.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        timesteps: T of the diffusion of z.
        prediction: What its network predicts: epsilon, x0 or v.
        prior_width: Channels of the first level of its network, or units of a dense layer; 0: 64 or 256.
        prior_blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        conditional: The diffusion model reads the label or condition.
        unconditional: Share of the examples whose condition training hides, so that sampling can be guided; e.g. 0.1.
    """
    image = len(data.shape) == 3 and network != "dense"
    size, gaussian = latent or (4 if image else 16), regularisation == "kl"
    encoder, decoder, grid = grid_coders(
        data,
        (2, size) if gaussian else (size,),
        Likelihood.channels_of(data, likelihood),
        latent=size,
        network=network,
        width=width,
        depth=depth,
        positions=0,
    )
    spec = DataSpec((size, *grid), classes=data.classes, condition=data.condition)
    prior = ddpm(
        spec,
        timesteps=timesteps,
        prediction=prediction,
        width=prior_width or (64 if image else 256),
        multipliers=(1,) if image and min(grid) < 3 else (),
        blocks=prior_blocks,
        conditional=conditional,
        unconditional=unconditional,
    )
    table = None if gaussian else Codebook(codebook, size)
    posterior: Conditional = GaussianHead(encoder) if table is None else Quantiser(encoder, table, math.prod(grid))
    penalty = StandardRate(beta) if gaussian else Commitment(commitment, "ema")
    return Model(
        data,
        LatentDiffusion(Nested(prior, StandardUnits(size, table)), Likelihood(decoder, data, likelihood)),
        Inference(latent=posterior),
        Autoencoding(penalty, Measured(), learns=("generative.likelihood", "generative.prior.codes", "inference")),
        Within(prior, read_latents),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
