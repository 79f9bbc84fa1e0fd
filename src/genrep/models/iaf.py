"""Inverse autoregressive flow."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import autoregressive_chain, check_sizes
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.parts import flow_parts
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Kingma et al. (2016), arXiv:1606.04934")
def iaf(
    data: DataSpec,
    *,
    layers: int = 5,
    width: int = 128,
    depth: int = 1,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Inverse autoregressive flow: x_i = exp(s_i) z_i + t_i, with s_i and t_i of z_1 .. z_(i-1); stacked.

    A sample takes one pass of the networks; the density, and so training, a few (Jacobi iteration, at most one for each
    value): for many columns `maf` trains faster.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: Autoregressive layers, in alternating order of the columns; images are flattened.
        width: Units of the masked networks.
        depth: Residual blocks in each of these networks.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers, width=width, depth=depth)
    condition = condition_width(data, conditional)
    bijection = autoregressive_chain(
        data.shape, Affine, layers=layers, width=width, depth=depth, condition=condition, inverse=True
    )
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
