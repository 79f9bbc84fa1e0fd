"""Residual flow."""

from __future__ import annotations

import math

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import arrange, check_sizes, normalised, squeezes
from genrep.distributions.flows.bijection import Bijection
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.residual import Residual
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.lipschitz import LipschitzConv, LipschitzDense
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Chen, Behrmann, Duvenaud & Jacobsen (2019), arXiv:1906.02735")
def residual_flow(
    data: DataSpec,
    *,
    levels: int | None = None,
    blocks: int = 0,
    width: int = 0,
    depth: int = 1,
    lipschitz: float = 0.9,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Residual flow: layers z = x + g(x) with networks g that contract; all values move at once.

    Training uses unbiased estimates of the log-determinant. Evaluation is exact where a layer has at most 64 values;
    above it is an estimate. Samples invert each layer by a fixed-point iteration.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        levels: Squeezes of the image, each followed by blocks, half of the values leaving between them. Both sides
            must be even each time; by default as often as they are and stay at least 4; 0: none.
        blocks: In each level, or in all for vectors; 0: 4 for images, 8 for vectors.
        width: Channels or units of the networks; 0: 32 or 128.
        depth: Hidden layers of each network beyond the first.
        lipschitz: The largest slope that a network may have, below 1.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The blocks read the label or condition.
    """
    image = len(data.shape) == 3
    condition, levels = condition_width(data, conditional), squeezes(data.shape, levels)
    blocks, width = blocks or (4 if image else 8), width or (32 if image else 128)
    check_sizes(blocks=blocks, width=width, depth=depth)

    def step(shape: tuple[int, ...], k: int) -> list[Bijection]:
        net = LipschitzConv if image else LipschitzDense
        return [Residual(net(shape[0], width, depth, lipschitz, condition), math.prod(shape))]

    bijection = arrange(data.shape, levels, blocks, normalised(step))
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
