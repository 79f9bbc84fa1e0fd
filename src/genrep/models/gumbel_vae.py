"""The variational autoencoder with categorical latents, trained by the Gumbel-softmax relaxation."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.codes import Entries, GumbelHead, code_prior, code_spec
from genrep.distributions.domains import domain_for
from genrep.distributions.heads import Likelihood, LikelihoodName, likelihood_domain
from genrep.distributions.nested import Nested, NestedVariable
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName
from genrep.nets.codebook import Codebook
from genrep.nets.condition import condition_width
from genrep.nets.grid import grid_coders
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.codes import UniformRate, read_codes
from genrep.objectives.likelihood import NLL
from genrep.objectives.within import Within


@recipe(
    family="autoencoder",
    reference="Jang, Gu & Poole (2017), arXiv:1611.01144; Maddison et al. (2017), arXiv:1611.00712; "
    "a learnt prior over a map of codes: Ramesh et al. (2021), arXiv:2102.12092",
)
def gumbel_vae(
    data: DataSpec,
    *,
    codebook: int = 64,
    latent: int = 16,
    positions: int = 16,
    beta: float = 1.0,
    warmest: float = 1.0,
    coldest: float = 0.5,
    annealing: int = 1000,
    hard: bool = False,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    prior_width: int = 64,
    prior_depth: int = 6,
    prior_dropout: float = 0.3,
    conditional: bool = False,
) -> Model:
    """VAE with categorical latents: q(z | x) chooses an entry of a codebook at each position, relaxed in training.

    Stage 1 minimises -log p(x | z) + beta KL(q(z | x) || uniform), with z a mixture of entries that a falling
    temperature sharpens. Stage 2 fits a PixelCNN to the codes, with all else held still: log P(x) >= E_q[log P(x | z)
    + log P(z) - log q(z | x)] at codes drawn from q.

    Args:
        codebook: Entries.
        latent: Dimensions of an entry.
        positions: Codes of an example, for vectors and network=dense; an image has a map of them.
        beta: Weight of the rate.
        warmest: Temperature at the start.
        coldest: Temperature at the end, below which gradients get noisy.
        annealing: Updates of stage 1 over which the temperature falls.
        hard: Training decodes the likeliest entry of each mixture, with the mixture's gradient.
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
        (codebook,),
        Likelihood.channels_of(data, likelihood),
        latent=latent,
        network=network,
        width=width,
        depth=depth,
        positions=positions,
    )
    codes, table = code_spec(data, grid, codebook), Codebook(codebook, latent, "gradient", revive=0.0)
    posterior = GumbelHead(encoder, table, warmest=warmest, coldest=coldest, annealing=annealing, hard=hard)
    prior = code_prior(codes, width=prior_width, depth=prior_depth, condition=condition, dropout=prior_dropout)
    inner = Model(codes, prior, Inference(), NLL(), domain=domain_for(codes))
    return Model(
        data,
        NestedVariable(Nested(inner, Entries(table)), Likelihood(decoder, data, likelihood)),
        Inference(latent=posterior),
        Autoencoding(UniformRate(beta), learns=("generative.likelihood", "inference")),
        Within(inner, read_codes),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
