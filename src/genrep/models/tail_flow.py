"""Tail-adaptive flow."""

from __future__ import annotations

from genrep.contracts import DataSpec, Model
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.base import StudentT
from genrep.distributions.flows.bijection import Bijection, Chain
from genrep.distributions.flows.coupling import column_coupling
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.spline import Spline
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Laszkiewicz, Lederer & Fischer (2022), arXiv:2206.10311")
def tail_flow(
    data: DataSpec,
    *,
    tails: tuple[float, ...] = (),
    couplings: int = 8,
    width: int = 128,
    depth: int = 1,
    bins: int = 8,
    conditional: bool = False,
) -> Model:
    """Tail-adaptive flow: from Student-t values with the tail index of each column. For vectors of real values.

    Couplings are the identity outside a box, or affine with bounded slope and shift, and no matrix mixes columns: so
    each column keeps the tail index of its base (with a Gaussian base all tails are light whatever the
    flow; Jaini et al., 2020).

    Args:
        tails: The tail index of each column, 0 for a light tail, as `genrep tails DATA` prints them; empty: learnt.
        couplings: Pairs of an affine and a spline coupling.
        width: Units of the networks in the couplings.
        depth: Residual blocks in each of these networks.
        bins: Bins of each spline on [-5, 5], in standard units.
        conditional: The couplings read the label or condition.
    """
    if len(data.shape) != 1 or data.levels is not None:
        raise ValueError(
            f"tail_flow is for vectors of real values; this data has shape {data.shape}, or integer levels."
        )
    check_sizes(couplings=couplings, width=width, depth=depth)
    condition, (d,) = condition_width(data, conditional), data.shape
    if tails and len(tails) != d:
        raise ValueError(f"Expected tails of {d} columns, got {len(tails)}: genrep tails DATA prints them.")

    def pair(k: int) -> list[Bijection]:
        elements = (Affine(), Spline(bins))
        return [column_coupling(d, k, f, width, depth, condition) for f in elements]

    layers = [layer for k in range(couplings) for layer in pair(k)]
    bijection = Chain(ActNorm(d), *layers, ActNorm(d))
    parts = flow_parts(data, bijection, condition, base=StudentT(d, tails))
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})
