"""Neural spline flows with couplings."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import arrange, coupling_step, default_sizes, mixed, squeezes
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.spline import Spline
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Durkan, Bekasov, Murray & Papamakarios (2019), arXiv:1906.04032")
def nsf(
    data: DataSpec,
    *,
    levels: int | None = None,
    couplings: int = 0,
    width: int = 0,
    depth: int = 1,
    bins: int = 8,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """Neural spline flow, RQ-NSF (C): couplings by monotone rational-quadratic splines, between invertible matrices.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        levels: Squeezes of the image, each followed by couplings, half of the values leaving between them. Both sides
            must be even each time; by default as often as they are and stay at least 4; with 0, couplings keep the
            squares of a checkerboard at full resolution.
        couplings: Couplings in each level, or in all for vectors; 0: 4 for images, 8 for vectors.
        width: Channels or units of the networks in the couplings; 0: 32 or 128.
        depth: Residual blocks in each of these networks.
        bins: Bins of each spline on [-5, 5], in standard units; the identity outside.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The couplings read the label or condition.
    """
    condition, levels = condition_width(data, conditional), squeezes(data.shape, levels)
    couplings, width = default_sizes(data.shape, couplings, width, depth)
    step = coupling_step(lambda: Spline(bins), squeezed=levels > 0, width=width, depth=depth, condition=condition)
    bijection = arrange(data.shape, levels, couplings, mixed(step))
    parts = flow_parts(data, bijection, condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
