"""The very deep variational autoencoder."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.heads import LikelihoodName, likelihood_domain
from genrep.distributions.hierarchy import hierarchy_parts, places
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.topdown import resolutions
from genrep.objectives.hierarchy import LevelRates, level_weights

_SMALL = 16  # side up to which levels are there by default


@recipe(family="autoencoder", reference="Child (2021), arXiv:2011.10650")
def very_deep_vae(
    data: DataSpec,
    *,
    blocks: tuple[int, ...] = (),
    latent: int = 8,
    beta: tuple[float, ...] = (1.0,),
    likelihood: LikelihoodName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """Hierarchical variational autoencoder with many levels at each resolution, in residual blocks from the top down.

    Maximises E_q log p(x | z) - sum_l beta_l KL(q(z_l | x, z_<l) || p(z_l | z_<l)); with all beta_l = 1 a lower bound
    of log p(x). Both q and p of a level read the stream of all levels above. As published: bottleneck blocks without
    normalisation, initial weights of what each of N blocks adds scaled by N^-1/2, a prior that starts at N(0, I), and
    upsampling by repetition. Instead of the published threshold above which updates are skipped, gradients are clipped
    to norm 1 (`clip`).

    Args:
        blocks: Levels at each resolution: 1 x 1 first, then from the smallest feature map to the image's own, for 28 x
            28 those of sides 1, 4, 7, 14, 28; what is left out at the end is 0. (): 2 at 1 x 1 and 3 at each side up
            to 16; 4 for vectors.
        latent: Channels of each level.
        beta: Weight of the rate, one for all levels or one for each from the top.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        width: Channels of the networks; 0: 32 for images, 128 for vectors.
        depth: Halvings of the image; 0: fits the data.
        conditional: Encoder, prior and decoder read the label or condition.
    """
    places(data, depth)  # refuses what does not fit
    sizes, condition = resolutions(data.shape, depth), condition_width(data, conditional)
    image = len(data.shape) == 3
    usual = [2] + [3 if max(size) <= _SMALL and k < len(sizes) - 1 else 0 for k, size in enumerate(sizes)][1:]
    counts = list(blocks) if blocks else usual if image else [4]
    if len(counts) > len(sizes) or counts[0] < 1 or min(counts) < 0:
        sides = ", ".join(f"{h} x {w}" for h, w in sizes)
        raise ValueError(f"Expected blocks for the resolutions {sides}, at least 1 for the first, got {tuple(blocks)}.")
    counts += [0] * (len(sizes) - len(counts))
    parts = hierarchy_parts(
        data,
        counts,
        latent=latent,
        width=width or (32 if image else 128),
        depth=depth,
        merge="concat",
        likelihood=likelihood,
        condition=condition,
    )
    return Model(
        data,
        parts.generative,
        parts.inference,
        LevelRates(level_weights(beta, sum(counts))),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )
