"""Neural spline flows with masked autoregressive networks."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import autoregressive_chain, check_sizes
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.spline import Spline
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Durkan, Bekasov, Murray & Papamakarios (2019), arXiv:1906.04032")
def nsf_ar(
    data: DataSpec,
    *,
    layers: int = 5,
    width: int = 128,
    depth: int = 1,
    bins: int = 8,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Neural spline flow, RQ-NSF (AR): z_i = spline(x_i) with knots of x_1 .. x_(i-1), between invertible matrices.

    The density takes one pass of the networks, a sample a few (Jacobi iteration, at most one for each value).

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        layers: Autoregressive layers, in alternating order of the columns; images are flattened.
        width: Units of the masked networks.
        depth: Residual blocks in each of these networks.
        bins: Bins of each spline on [-5, 5], in standard units; the identity outside.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The layers read the label or condition.
    """
    check_sizes(layers=layers, width=width, depth=depth)
    condition = condition_width(data, conditional)
    bijection = autoregressive_chain(
        data.shape, lambda: Spline(bins), layers=layers, width=width, depth=depth, condition=condition, mix=True
    )
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
