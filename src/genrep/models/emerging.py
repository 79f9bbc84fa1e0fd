"""Flow of emerging convolutions."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import Step, arrange, coupling_step, default_sizes, normalised, squeezes
from genrep.distributions.flows.bijection import Bijection
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.emerging import emerging as convolutions
from genrep.distributions.flows.linear import Linear
from genrep.distributions.flows.parts import flow_parts
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Hoogeboom, van den Berg & Welling (2019), arXiv:1901.11137")
def emerging(
    data: DataSpec,
    *,
    levels: int | None = None,
    couplings: int = 0,
    width: int = 0,
    depth: int = 1,
    kernel: int = 3,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Glow with emerging convolutions: each step has two autoregressive convolutions of opposite order. For images.

    Together they reach all neighbours; their log-determinant is exact and costs nothing, their inverse takes a few
    passes. Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        levels: Squeezes of the image, each followed by couplings, half of the values leaving between them. Both sides
            must be even each time; by default as often as they are and stay at least 4; with 0, couplings keep the
            squares of a checkerboard at full resolution.
        couplings: Steps in each level; 0: 4.
        width: Channels of the networks in the couplings; 0: 32.
        depth: Residual blocks in each of these networks.
        kernel: Side of the autoregressive convolutions, odd.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The couplings read the label or condition.
    """
    if len(data.shape) != 3:
        raise ValueError(f"emerging is for images (C, H, W); this data has shape {data.shape}. Try glow or maf.")
    condition, levels = condition_width(data, conditional), squeezes(data.shape, levels)
    couplings, width = default_sizes(data.shape, couplings, width, depth)
    coupling = coupling_step(Affine, squeezed=levels > 0, width=width, depth=depth, condition=condition)

    def step(shape: tuple[int, ...], k: int) -> list[Bijection]:
        return [Linear(shape[0]), convolutions(shape[0], kernel), *coupling(shape, k)]

    layers: Step = normalised(step)
    bijection = arrange(data.shape, levels, couplings, layers)
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
