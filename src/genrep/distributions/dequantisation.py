"""From a density to a mass over levels: noise within each cell, and what it costs.

log P(x) = log int_cell p(x + u) du >= E log 1/K sum_k p(x + u_k) / q(u_k | x), u_k ~ q(u | x): with K draws a lower
bound that grows with K to log P(x) (Hoogeboom, Cohen & Tomczak, 2020); K = 1 and a uniform q is Theis et al., 2016.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Point, logistic_noise
from genrep.distributions.domains import Logit
from genrep.distributions.flows.bijection import Bijection, Chain
from genrep.distributions.flows.coupling import Coupling, checkerboard, halves
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.flow import Flow
from genrep.nets.coupling import ConvCoupling, DenseCoupling

DequantisationName = Literal["none", "uniform", "variational"]


class Noise(nn.Module, ABC):
    """q(u | x): levels (B, *x) as floats -> u in (-1/2, 1/2), the same shape, and log q(u | x), (B,)."""

    @abstractmethod
    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]: ...


class UniformNoise(Noise):
    """q(u | x) = 1."""

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rand_like(level) - 0.5, level.new_zeros(len(level))


class VariationalNoise(Noise):
    """u + 1/2 = sigmoid(f(e; x)), e logistic, f affine couplings that read x (Flow++, Ho et al., 2019, section 3.1).

    The first coupling moves every value given x alone, later ones given half of the others. It starts uniform.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, width: int, couplings: int = 2) -> None:
        super().__init__()
        self.levels, channels, sides = levels, shape[0], shape[1:]
        both = (2 * channels, *sides)

        def layer(keep: Tensor) -> Bijection:
            keep = keep.expand(channels, *sides)
            whole = torch.cat([keep, torch.ones_like(keep)])
            net = ConvCoupling(both[0], 2, width, 1) if sides else DenseCoupling(both, 2, width, 1)
            return Coupling(whole, net, Affine())

        board = lambda k: checkerboard(sides[0], sides[1], k) if sides else halves(channels, k)  # noqa: E731
        nothing = torch.zeros(1, *[1] * len(sides), dtype=torch.bool)
        self.layers = Chain(layer(nothing), *[layer(board(k)) for k in range(couplings)])

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        start = logistic_noise(torch.rand_like(level))
        scaled = 2 * level / (self.levels - 1) - 1
        both, log_det = self.layers(torch.cat([start, scaled], 1))
        end = both.chunk(2, 1)[0]
        log_start, log_end = (
            (F.logsigmoid(e) + F.logsigmoid(-e)).flatten(1).sum(1) for e in (start, end)
        )  # of the logistic density, and of the slope of the sigmoid
        return torch.sigmoid(end) - 0.5, log_start - log_det - log_end


class Dequantised(Conditional):
    """P(x | y) over levels, bounded from below by a flow's density with noise in each cell; samples are rounded.

    `domain`: the logits that the flow computes in; `draws`: the K of training and of the default likelihood.
    """

    measure = "mass"

    def __init__(self, flow: Flow, domain: Logit, noise: Noise, draws: int = 1) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"Expected draws >= 1, got {draws}.")
        self.flow, self.domain, self.noise, self.draws = flow, domain, noise, draws
        self.reads_y = flow.reads_y

    def forward(self, *, y: Tensor | None = None) -> Bounded:
        return Bounded(self, self.flow(y=y), self.draws)

    def likelihood(self, z: Tensor, *, y: Tensor | None = None) -> Point:
        return self.flow.likelihood(z, y=y)

    def evaluations(self, **how: Any) -> int:
        return self.flow.evaluations(**how)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """elbo: the mean of `draws` bounds of one draw. importance: the bound of `draws` draws together."""

        def elbo(x: Tensor, y: Tensor | None, *, draws: int = 1) -> Tensor:
            return torch.stack([Bounded(self, self.flow(y=y), 1).log_prob(x) for _ in range(draws)]).mean(0)

        def importance(x: Tensor, y: Tensor | None, *, draws: int = max(self.draws, 16)) -> Tensor:
            return Bounded(self, self.flow(y=y), draws).log_prob(x)

        exact = next(iter(self.flow.likelihoods(inference).values())).kind == "exact"
        kind = "lower bound" if exact else "estimate"
        ways = {"elbo": Way(elbo, kind, "mass"), "importance": Way(importance, kind, "mass")}
        return ways if self.draws == 1 else dict(reversed(ways.items()))


class Bounded(Distribution):
    """log_prob is the bound of K draws at levels given inside the domain; samples are those of the density."""

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(self, part: Dequantised, density: Distribution, draws: int) -> None:
        super().__init__(density.batch_shape, density.event_shape, validate_args=False)
        self.part, self.density, self.draws = part, density, draws

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.density.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        level = self.part.domain.outward(value).to(value.dtype)
        return torch.stack([self._weight(level) for _ in range(self.draws)]).logsumexp(0) - math.log(self.draws)

    def _weight(self, level: Tensor) -> Tensor:
        u, log_q = self.part.noise(level)
        point = torch.minimum(level + u, torch.nextafter(level + 0.5, level))  # the sum may be rounded up
        inside, slope = self.part.domain.placed(point)
        return self.density.log_prob(inside) + slope - log_q


class Undequantised(Conditional):
    """A density over levels as if they were real numbers, read at the centres of the cells: not a mass of anything."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow, self.reads_y = flow, flow.reads_y

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        return self.flow(y=y)

    def likelihood(self, z: Tensor, *, y: Tensor | None = None) -> Point:
        return self.flow.likelihood(z, y=y)

    def evaluations(self, **how: Any) -> int:
        return self.flow.evaluations(**how)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        ways = self.flow.likelihoods(inference)
        return {name: way._replace(measure="improper") for name, way in ways.items()}


def dequantised(flow: Flow, domain: Logit, name: DequantisationName, draws: int, width: int = 32) -> Conditional:
    """The flow with this dequantisation; uniform with one draw is what every density gets: the flow itself."""
    if name not in get_args(DequantisationName):
        raise ValueError(f"Unknown dequantisation {name!r}. Valid: {', '.join(get_args(DequantisationName))}.")
    if name == "none":
        return Undequantised(flow)
    if name == "uniform" and draws == 1:
        return flow
    noise = UniformNoise() if name == "uniform" else VariationalNoise(flow.shape, domain.levels, width)
    return Dequantised(flow, domain, noise, draws)
