"""The vector-quantised variational autoencoder."""

from __future__ import annotations

import math

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.codes import Entries, Quantiser, code_prior, code_spec
from genrep.distributions.domains import domain_for
from genrep.distributions.heads import Likelihood, LikelihoodName, likelihood_domain
from genrep.distributions.nested import ElboOnly, Nested
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.codebook import Codebook, CodebookName
from genrep.nets.condition import condition_width
from genrep.nets.grid import grid_coders
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.codes import Commitment, read_codes
from genrep.objectives.likelihood import NLL
from genrep.objectives.within import Within


@recipe(family="autoencoder", reference="van den Oord, Vinyals & Kavukcuoglu (2017), arXiv:1711.00937")
def vq_vae(
    data: DataSpec,
    *,
    codebook: int = 128,
    latent: int = 16,
    positions: int = 16,
    learning: CodebookName = "ema",
    decay: float = 0.99,
    revive: float = 0.1,
    commitment: float = 0.25,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    prior_width: int = 64,
    prior_depth: int = 6,
    prior_dropout: float = 0.3,
    conditional: bool = False,
) -> Model:
    """VQ-VAE: z is a map of codebook entries, those nearest to encoder(x), with a PixelCNN over their codes as prior.

    Stage 1 minimises -log p(x | z) + commitment |z_e - sg(e)|^2, gradients passing from z straight to the encoder.
    Stage 2 fits p(codes), with all else held still. log P(x) >= log P(codes) + log P(x | codes), which is loose before.

    Args:
        codebook: Entries.
        latent: Dimensions of an entry.
        positions: Codes of an example, for vectors and network=dense; an image has a map of them.
        learning: Entries are moving averages of what chooses them (ema), or learn by gradient.
        decay: Of the moving averages.
        revive: Share of even use below which an entry starts again at an encoding; 0: never, and they begin at random.
        commitment: Weight of the commitment term, a sum over the values of z.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        prior_width: Channels of the prior's network; one over a row of codes has eight times as many units.
        prior_depth: Its layers.
        prior_dropout: Probability, in its layers: codes of few examples are soon known by heart. Rows have none.
        conditional: The prior reads the label or condition.
    """
    if positions < 1:
        raise ValueError(f"Expected positions >= 1, got {positions}.")
    condition = condition_width(data, conditional)
    encoder, decoder, grid = grid_coders(
        data,
        (latent,),
        Likelihood.channels_of(data, likelihood),
        latent=latent,
        network=network,
        width=width,
        depth=depth,
        positions=positions,
    )
    codes = code_spec(data, grid, codebook)
    table = Codebook(codebook, latent, learning, decay=decay, revive=revive)
    prior = code_prior(codes, width=prior_width, depth=prior_depth, condition=condition, dropout=prior_dropout)
    inner = Model(codes, prior, Inference(), NLL(), domain=domain_for(codes))
    return Model(
        data,
        ElboOnly(Nested(inner, Entries(table)), Likelihood(decoder, data, likelihood)),
        Inference(latent=Quantiser(encoder, table, math.prod(grid))),
        Autoencoding(Commitment(commitment, learning), learns=("generative.likelihood", "inference")),
        Within(inner, read_codes),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
