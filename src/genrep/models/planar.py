"""Planar flow."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.bijection import Chain
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.planar import Planar
from genrep.distributions.flows.radial import Radial
from genrep.distributions.flows.reshape import Flatten
from genrep.distributions.flows.sylvester import Sylvester
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Rezende & Mohamed (2015), arXiv:1505.05770")
def planar(
    data: DataSpec,
    *,
    layers: int = 16,
    layer: Literal["planar", "radial", "sylvester"] = "planar",
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Planar flow: layers z = x + u tanh(w'x + b); samples by a numerical inverse. For vectors of few columns.

    Or radial and Sylvester layers in their place.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: How many bends; images are flattened.
        layer: planar bends along one direction; radial expands or contracts around a point; sylvester bends along
            up to 16 directions at once.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers)
    condition = condition_width(data, conditional)
    make = {
        "planar": lambda: Planar(data.size, condition),
        "radial": lambda: Radial(data.size, condition),
        "sylvester": lambda: Sylvester(data.size, condition=condition),
    }[layer]
    bends = [make() for _ in range(layers)]
    bijection = Chain(ActNorm(*data.shape), Flatten(data.shape), *bends, ActNorm(data.size))
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
