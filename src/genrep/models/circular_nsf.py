"""Neural spline flow of angles."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.domains import Angles
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.base import Torus
from genrep.distributions.flows.bijection import Chain
from genrep.distributions.flows.coupling import column_coupling
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.spline import CircularSpline
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Rezende et al. (2020), arXiv:2002.02428")
def circular_nsf(
    data: DataSpec,
    *,
    couplings: int = 8,
    width: int = 128,
    depth: int = 1,
    bins: int = 8,
    conditional: bool = False,
) -> Model:
    """Neural spline flow on a torus: every column is an angle in radians; couplings by splines of the circle.

    The density is one of angles, the same for x and x + 2 pi; samples lie in [-pi, pi). For vectors.

    Args:
        couplings: Couplings, each of which moves half of the columns.
        width: Units of the networks in the couplings, which read cosines and sines.
        depth: Residual blocks in each of these networks.
        bins: Bins of each spline.
        conditional: The couplings read the label or condition.
    """
    if len(data.shape) != 1 or data.levels is not None:
        raise ValueError(f"circular_nsf is for vectors of angles in radians; this data has shape {data.shape}.")
    check_sizes(couplings=couplings, width=width, depth=depth)
    condition, (d,) = condition_width(data, conditional), data.shape

    steps = [
        column_coupling(d, k, CircularSpline(bins), width, depth, condition, angles=True) for k in range(couplings)
    ]
    bijection = Chain(*steps)
    parts = flow_parts(data, bijection, condition, base=Torus(d))
    return Model(data, parts.flow, parts.inference, NLL(), domain=Angles(), training={"lr": 1e-3})
