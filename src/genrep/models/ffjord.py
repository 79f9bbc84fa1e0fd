"""Continuous flow."""

from __future__ import annotations

import math

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import arrange, check_sizes, normalised, squeezes
from genrep.distributions.flows.bijection import Bijection
from genrep.distributions.flows.continuous import TIME, Continuous, GradientName
from genrep.distributions.flows.parts import flow_parts
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.lipschitz import LipschitzConv, LipschitzDense
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud (2019), arXiv:1810.01367")
def ffjord(
    data: DataSpec,
    *,
    levels: int | None = None,
    blocks: int = 0,
    width: int = 0,
    depth: int = 1,
    lipschitz: float = 20.0,
    tolerance: float = 1e-3,
    gradient: GradientName = "recomputed",
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """FFJORD: z = x(1) with dx/dt = f(x, t), solved by adaptive steps; the trace of df/dx gives the log-determinant.

    Training estimates the trace by random signs. Evaluation is exact, up to the tolerance of the solver, where a layer
    has at most 64 values; above it is an estimate.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        levels: Squeezes of the image, each followed by blocks, half of the values leaving between them. Both sides
            must be even each time; by default as often as they are and stay at least 4; 0: none.
        blocks: Equations one after the other, in each level or in all for vectors; 0: 1 for images, 2 for vectors.
        width: Channels or units of the networks; 0: 32 or 64.
        depth: Hidden layers of each network beyond the first.
        lipschitz: The largest slope that a network may have; it bounds how stiff an equation can become.
        tolerance: Error of a step over 1 + |value|.
        gradient: recomputed makes each step anew in the backward pass, in little memory; stored keeps everything.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The networks read the label or condition.
    """
    image = len(data.shape) == 3
    condition, levels = condition_width(data, conditional), squeezes(data.shape, levels)
    blocks, width = blocks or (1 if image else 2), width or (32 if image else 64)
    check_sizes(blocks=blocks, width=width, depth=depth)

    def step(shape: tuple[int, ...], k: int) -> list[Bijection]:
        net = LipschitzConv if image else LipschitzDense
        field = net(shape[0], width, depth, lipschitz, TIME + condition)
        return [Continuous(field, math.prod(shape), tolerance, gradient)]

    bijection = arrange(data.shape, levels, blocks, normalised(step))
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
