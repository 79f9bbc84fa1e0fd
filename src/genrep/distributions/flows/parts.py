"""What a model that is one flow consists of."""

from __future__ import annotations

from typing import NamedTuple

from genrep.contracts import Conditional, DataSpec, Domain, Inference
from genrep.distributions.dequantisation import DequantisationName, dequantised
from genrep.distributions.domains import Centres, Logit, Standard
from genrep.distributions.flows.bijection import Bijection
from genrep.distributions.flows.flow import Flow, Inverse
from genrep.distributions.latent import StandardNormal

ALPHA = 1e-5  # RealNVP: 0.05


class FlowParts(NamedTuple):
    """The generative part, the exact inverse of sampling, and the domain."""

    flow: Conditional
    inference: Inference
    domain: Domain


def flow_parts(
    data: DataSpec,
    bijection: Bijection,
    condition: int = 0,
    *,
    base: Conditional | None = None,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
) -> FlowParts:
    """The flow from the base, N(0, I) if none is given, its inverse as the posterior, and the domain.

    The domain is logits of levels, or standard units. Levels are squeezed by 1e-5 only before the logit (RealNVP:
    0.05): the cells of black and white then become tails of a logistic distribution rather than spikes, which a flow
    fits sooner. `dequantisation` and `draws`, for levels:
    how the density becomes a mass.
    """
    base = base or StandardNormal(*bijection.shape_out(data.shape))
    flow = Flow(base, bijection, data.shape, condition)
    inference = Inference(latent=Inverse(flow))
    if data.levels is None:
        if (dequantisation, draws) != ("uniform", 1):
            raise ValueError(
                f"dequantisation={dequantisation!r} with draws={draws} is for integer levels, and these data are "
                "real-valued: leave both out."
            )
        return FlowParts(flow, inference, Standard(data))
    domain = Centres(data.levels, ALPHA) if dequantisation == "none" else Logit(data.levels, ALPHA)
    return FlowParts(dequantised(flow, domain, dequantisation, draws), inference, domain)
