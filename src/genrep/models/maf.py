"""Masked autoregressive flow."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import NormalisationName, autoregressive_chain, check_sizes
from genrep.distributions.flows.base import BaseName, base_of
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.parts import flow_parts
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.dependent import Dependent
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Papamakarios, Pavlakou & Murray (2017), arXiv:1705.07057")
def maf(
    data: DataSpec,
    *,
    layers: int = 5,
    width: int = 128,
    depth: int = 1,
    base: BaseName = "normal",
    normalisation: NormalisationName = "activation",
    correlation: float = 0.0,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Masked autoregressive flow: z_i = exp(s_i) x_i + t_i, with s_i and t_i of x_1 .. x_(i-1); stacked.

    The density takes one pass of the networks, a sample a few (Jacobi iteration, at most one for each value).

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: Autoregressive layers, in alternating order of the columns; images are flattened.
        width: Units of the masked networks.
        depth: Residual blocks in each of these networks.
        base: What z follows: N(0, I), a learnt mixture of 10 Gaussians, or Student-t with learnt degrees of freedom.
        normalisation: By the statistics of the first batch, learnt on; or of each batch, with running averages.
        correlation: Of the latents of two rows with the same label, which then says whose rows these are (a family, a
            patient): training maximises their joint likelihood. 0: rows are independent.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers, width=width, depth=depth)
    condition = condition_width(data, conditional)
    bijection = autoregressive_chain(
        data.shape,
        Affine,
        layers=layers,
        width=width,
        depth=depth,
        condition=condition,
        normalisation=normalisation,
    )
    parts = flow_parts(
        data, bijection, condition, base=base_of(base, data.size), dequantisation=dequantisation, draws=draws
    )
    objective = Dependent(correlation) if correlation else NLL()
    return Model(data, parts.flow, parts.inference, objective, domain=parts.domain, training={"lr": 1e-3})
