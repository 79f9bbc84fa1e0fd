"""Planar flow."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.bijection import Chain
from genrep.distributions.flows.flow import flow_parts
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.planar import Planar
from genrep.distributions.flows.reshape import Flatten
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Rezende & Mohamed (2015), arXiv:1505.05770")
def planar(
    data: DataSpec,
    *,
    layers: int = 16,
    conditional: bool = False,
) -> Model:
    """Planar flow: layers z = x + u tanh(w'x + b); samples by a numerical inverse. For vectors of few columns.

    Integer data are dequantised uniformly and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: How many bends; images are flattened.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers)
    condition = condition_width(data, conditional)
    bends = [Planar(data.size, condition) for _ in range(layers)]
    bijection = Chain(ActNorm(*data.shape), Flatten(data.shape), *bends, ActNorm(data.size))
    parts = flow_parts(data, bijection, condition)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
