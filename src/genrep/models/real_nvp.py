"""RealNVP: affine couplings, multiscale for images."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import (
    NormalisationName,
    arrange,
    coupling_step,
    default_sizes,
    squeezes,
)
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.mixture import LogisticMixture
from genrep.distributions.flows.parts import flow_parts
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Dinh, Sohl-Dickstein & Bengio (2017), arXiv:1605.08803")
def real_nvp(
    data: DataSpec,
    *,
    levels: int | None = None,
    couplings: int = 0,
    width: int = 0,
    depth: int = 1,
    coupling: Literal["affine", "mixture"] = "affine",
    normalisation: NormalisationName = "activation",
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """RealNVP: z = f(x) ~ N(0, I) with f made of couplings z_b = exp(s(x_a)) x_b + t(x_a); exact density and inverse.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        levels: Squeezes of the image, each followed by couplings, half of the values leaving between them. Both sides
            must be even each time; by default as often as they are and stay at least 4 (28 x 28: 2, 32 x 32: 3). With
            0, as for a side that is odd at once, couplings keep the squares of a checkerboard at full resolution.
        couplings: Couplings in each level, or in all for vectors; 0: 4 for images, 8 for vectors.
        width: Channels or units of the networks in the couplings; 0: 32 or 128.
        depth: Residual blocks in each of these networks.
        coupling: Of what is not kept: affine, or by mixtures of 8 logistic distribution functions (Flow++), which
            are inverted by bisection.
        normalisation: By the statistics of the first batch, learnt on; or of each batch, with running averages.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The couplings read the label or condition.
    """
    condition, levels = condition_width(data, conditional), squeezes(data.shape, levels)
    couplings, width = default_sizes(data.shape, couplings, width, depth)
    element = Affine if coupling == "affine" else LogisticMixture
    step = coupling_step(element, squeezed=levels > 0, width=width, depth=depth, condition=condition)
    bijection = arrange(data.shape, levels, couplings, step, normalisation)
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
