"""Planar flow."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.bijection import Chain
from genrep.distributions.flows.flow import flow_parts
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.planar import Planar
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
    """Planar flow for vectors: layers z = x + u tanh(w'x + b); samples by a numerical inverse.

    Integer data are dequantised uniformly and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: How many bends.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers)
    if len(data.shape) != 1:
        raise ValueError(f"planar is for vectors (D,); this data has shape {data.shape}: choose real_nvp or glow.")
    condition = condition_width(data, conditional)
    bends = [Planar(data.size, condition) for _ in range(layers)]
    parts = flow_parts(data, Chain(ActNorm(data.size), *bends, ActNorm(data.size)), condition)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
