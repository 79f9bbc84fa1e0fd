"""The ladder variational autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.hierarchy import hierarchy_parts, places
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.hierarchy import LevelRates, level_weights


@recipe(
    family="autoencoder",
    reference="Sønderby, Raiko, Maaløe, Sønderby & Winther (2016), arXiv:1602.02282",
)
def ladder_vae(
    data: DataSpec,
    *,
    levels: int = 3,
    latent: int = 8,
    beta: tuple[float, ...] = (1.0,),
    likelihood: LikelihoodName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Hierarchical variational autoencoder: z_1 at the top, then p(z_l | z_<l) down to p(x | z), and back by a ladder.

    Maximises E_q log p(x | z) - sum_l beta_l KL(q(z_l | x, z_<l) || p(z_l | z_<l)); with all beta_l = 1 a lower bound
    of log p(x). q(z_l | x, z_<l) is the normalised product of p(z_l | z_<l) and of a Gaussian that the encoder reads
    off x, so a level of which x says nothing costs nothing. For images the first level is one pixel and each further
    one sits at the next resolution; more levels than there are below the image's own share them. The log has `rate_1`,
    `rate_2`, ... and their sum `rate`.

    Args:
        levels: Of the code; for vectors all have the same shape.
        latent: Channels of each level.
        beta: Weight of the rate, one for all levels or one for each from the top.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        width: Channels of the networks; 0: 32 for images, 128 for vectors.
        depth: Halvings of the image; 0: fits the data.
        conditional: Encoder, prior and decoder read the label or condition.
    """
    if levels < 1:
        raise ValueError(f"Expected levels >= 1, got {levels}.")
    count, condition = places(data, depth), condition_width(data, conditional)
    where = [k if levels <= count else k * count // levels for k in range(levels)]
    counts = [where.count(k) for k in range(count + (len(data.shape) == 3))]
    parts = hierarchy_parts(
        data,
        counts,
        latent=latent,
        width=width or (32 if len(data.shape) == 3 else 128),
        depth=depth,
        merge="precision",
        likelihood=likelihood,
        condition=condition,
    )
    return Model(
        data,
        parts.generative,
        parts.inference,
        LevelRates(level_weights(beta, levels)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
