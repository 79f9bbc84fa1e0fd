"""Codes of several levels: p(z) = p(z_1) prod_l p(z_l | z_<l), q(z | x) = prod_l q(z_l | x, z_<l), both top down.

Posterior, prior and likelihood share one stream from the top to x (Sønderby et al., 2016; Child, 2021). Outside, a code
is one vector (B, D): the levels, flattened, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, DataSpec, Inference, Way
from genrep.distributions.basic import Gaussian, kl
from genrep.distributions.flows.elementwise import bounded
from genrep.distributions.heads import Likelihood, LikelihoodName
from genrep.distributions.latent import Ancestral
from genrep.nets.condition import encode_condition
from genrep.nets.topdown import BottomUp, Level, TopDown, resolutions

_LIMIT = 5.0  # of log standard deviations; smooth, so that none gets stuck behind it


class Step(NamedTuple):
    """One level of a walk."""

    z: Tensor  # (B, latent, h, w)
    prior: Gaussian
    posterior: Gaussian | None


class Walk(NamedTuple):
    """What a walk from the top down has met, and what reaches the likelihood, (B, *out)."""

    steps: list[Step]
    out: Tensor

    @property
    def code(self) -> Tensor:
        """All levels side by side, (B, D)."""
        return torch.cat([step.z.flatten(1) for step in self.steps], 1)

    @property
    def rates(self) -> list[Tensor]:
        """KL(q(z_l | x, z_<l) || p(z_l | z_<l)) of each level, (B,) nats, in closed form given the levels above."""
        found = []
        for step in self.steps:
            assert step.posterior is not None
            rate = kl(step.posterior, step.prior)
            assert rate is not None
            found.append(rate)
        return found

    def log_prior(self) -> Tensor:
        """log p(z), (B,)."""
        return torch.stack([step.prior.log_prob(step.z) for step in self.steps]).sum(0)

    def log_posterior(self) -> Tensor:
        """log q(z | x), (B,)."""
        found = []
        for step in self.steps:
            assert step.posterior is not None
            found.append(step.posterior.log_prob(step.z))
        return torch.stack(found).sum(0)


Pick = Callable[[int, Gaussian, Gaussian | None], Tensor]  # (level, prior, posterior) -> z of this level


def drawn(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
    """A draw from the posterior, or without one from the prior."""
    return (posterior or prior).rsample()


def expected(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
    """The mean, given the means above."""
    return (posterior or prior).mean


def cooled(temperature: float) -> Pick:
    """Draws whose standard deviation is that of the prior times `temperature`."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"Expected temperature >= 0, got {temperature}.")
    return lambda level, prior, posterior: prior.mean + temperature * (prior.rsample() - prior.mean)


class Ladder(nn.Module):
    """The stream that prior, posterior and likelihood share.

    `merge`: how the posterior of a level comes from what x says of it. precision: the product of that Gaussian with the
    prior (Sønderby et al., 2016, section 2.1), 1 / s^2 = 1 / s_x^2 + 1 / s_p^2 and the mean weighted alike. concat: a
    network reads both (Child, 2021).
    """

    def __init__(
        self, net: TopDown, features: BottomUp, merge: Literal["precision", "concat"], condition: int = 0
    ) -> None:
        super().__init__()
        self.net, self.features, self.merge, self.condition_width = net, features, merge, condition

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each level."""
        return [(level.latent, *level.size) for level in self._levels()]

    def walk(self, n: int, pick: Pick, *, x: Tensor | None = None, y: Tensor | None = None) -> Walk:
        """From the top to the output for n examples; with x the posterior of each level is there to pick from."""
        like = self.net.starts[0].new_zeros(n, 1) if x is None else x
        c = encode_condition(y, self.condition_width, like) if self.condition_width else None
        features = None if x is None else self.features(x, c)
        h, place, steps = self.net.start(n, c), 0, []
        for index, (level, k) in enumerate(zip(self._levels(), self.net.places, strict=True)):
            h, place = self.net.grown(h, place, k), k
            given = h
            numbers, h = level.prior(h)
            prior = _gaussian(numbers)
            posterior = None if features is None else self._posterior(level, given, features[k], prior)
            z = pick(index, prior, posterior)
            h = level.absorb(h, z)
            steps.append(Step(z, prior, posterior))
        return Walk(steps, self.net.output(h).float())

    def given(self, code: Tensor) -> Pick:
        """The levels of a code (B, D)."""
        sizes = [math.prod(shape) for shape in self.shapes]
        if code.ndim != 2 or code.shape[1] != sum(sizes):
            raise ValueError(f"Expected codes of shape (B, {sum(sizes)}), got {tuple(code.shape)}.")
        parts = code.split(sizes, 1)
        return lambda level, prior, posterior: parts[level].unflatten(1, self.shapes[level])

    def _posterior(self, level: Level, h: Tensor, features: Tensor | None, prior: Gaussian) -> Gaussian:
        assert features is not None
        q = _gaussian(level.posterior(h, features))
        return product(q, prior) if self.merge == "precision" else q

    def _levels(self) -> list[Level]:
        return list(self.net.levels)  # pyright: ignore[reportReturnType]


def _gaussian(numbers: Tensor) -> Gaussian:
    mean, raw = numbers.float().unbind(1)
    return Gaussian(mean, bounded(raw, _LIMIT))


def product(a: Gaussian, b: Gaussian) -> Gaussian:
    """The normalised product of two Gaussian densities: precisions add, means are weighted by them."""
    log_precision = torch.logaddexp(-2 * a.log_std, -2 * b.log_std)
    share = (-2 * a.log_std - log_precision).exp()
    return Gaussian(share * a.mean + (1 - share) * b.mean, -0.5 * log_precision)


class Codes(Distribution):
    """A law of codes (B, D) that a walk draws and scores."""

    has_rsample = True

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(
        self, walk: Callable[[int, Pick], Walk], score: Callable[[Walk], Tensor], ladder: Ladder, batch: int | None
    ) -> None:
        size = sum(math.prod(shape) for shape in ladder.shapes)
        super().__init__(torch.Size(() if batch is None else (batch,)), torch.Size((size,)), validate_args=False)
        self.walk, self.score, self.ladder = walk, score, ladder

    @property
    def mean(self) -> Tensor:
        """The mean of every level given the means above: exact for the first, a representative for the others."""
        z = self.walk(len(self) if self.batch_shape else 1, expected).code
        return z if self.batch_shape else z[0]

    def __len__(self) -> int:
        return self.batch_shape[0]

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        n = torch.Size(sample_shape).numel()
        if self.batch_shape and n != 1:
            raise ValueError("There is one draw for each example of the batch; repeat the examples instead.")
        z = self.walk(len(self) if self.batch_shape else n, drawn).code
        return z.reshape(*sample_shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, D) -> (B,), or of one code (D,) -> ()."""
        z = value if value.ndim == 2 else value[None]
        found = self.score(self.walk(len(z), self.ladder.given(z)))
        return found if value.ndim == 2 else found[0]


class LadderPrior(Conditional):
    """p(z | y) of all levels."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder, self.reads_y = ladder, ladder.condition_width > 0

    def forward(self, *, y: Tensor | None = None) -> Codes:
        walk = lambda n, pick: self.ladder.walk(n, pick, y=y)  # noqa: E731
        return Codes(walk, Walk.log_prior, self.ladder, None if y is None else len(y))


class LadderPosterior(Conditional):
    """q(z | x, y) of all levels."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder, self.reads_y = ladder, ladder.condition_width > 0

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Codes:
        walk = lambda n, pick: self.ladder.walk(len(x), pick, x=x, y=y)  # noqa: E731
        return Codes(walk, Walk.log_posterior, self.ladder, len(x))


class Outputs(nn.Module):
    """(code, c) -> (B, *out): the output of a walk with the levels given, for a likelihood to read."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder = ladder

    def forward(self, code: Tensor, c: Tensor | None = None) -> Tensor:
        return self.ladder.walk(len(code), self.ladder.given(code), y=c).out


class Hierarchy(Conditional):
    """z ~ p(z | y), x ~ p(x | z, y), z of several levels; draws and bounds take one walk."""

    def __init__(self, ladder: Ladder, prior: LadderPrior, likelihood: Likelihood) -> None:
        super().__init__()
        self.ladder, self.prior, self.likelihood = ladder, prior, likelihood
        self.reads_y, self.measure = prior.reads_y, likelihood.measure

    def forward(
        self, *, y: Tensor | None = None, pixels: Literal["mean", "draw"] = "mean", temperature: float = 1.0
    ) -> Ancestral:
        """`pixels`: the mean of p(x | z), or a draw. `temperature`: factor on the prior's standard deviations."""
        if pixels not in ("mean", "draw"):
            raise ValueError(f"Expected pixels='mean' or 'draw', got {pixels!r}.")
        pick = cooled(temperature)

        def draw(n: int) -> Tensor:
            x = self.likelihood.of(self.ladder.walk(n, pick, y=y).out)
            return x.mean if pixels == "mean" else x.sample()

        return Ancestral(draw, None if y is None else len(y))

    def coded(self, x: Tensor, y: Tensor | None) -> tuple[Walk, Distribution]:
        """A walk down the posterior of x, and the likelihood that it ends in."""
        walk = self.ladder.walk(len(x), drawn, x=x, y=y)
        return walk, self.likelihood.of(walk.out)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """elbo: each rate in closed form given the levels above. importance: the bound of `draws` walks."""
        if self.measure == "improper":
            return {}

        def elbo(x: Tensor, y: Tensor | None, *, draws: int = 1) -> Tensor:
            found = [self.coded(x, y) for _ in range(draws)]
            return torch.stack([p.log_prob(x) - torch.stack(walk.rates).sum(0) for walk, p in found]).mean(0)

        def importance(x: Tensor, y: Tensor | None, *, draws: int = 64) -> Tensor:
            def weight() -> Tensor:
                walk, p = self.coded(x, y)
                return p.log_prob(x) + walk.log_prior() - walk.log_posterior()

            return torch.stack([weight() for _ in range(draws)]).logsumexp(0) - math.log(draws)

        return {
            "elbo": Way(elbo, "lower bound", self.measure),
            "importance": Way(importance, "lower bound", self.measure),
        }


class HierarchyParts(NamedTuple):
    generative: Hierarchy
    inference: Inference


def hierarchy_parts(
    data: DataSpec,
    counts: Sequence[int],
    *,
    latent: int,
    width: int,
    depth: int,
    merge: Literal["precision", "concat"],
    likelihood: LikelihoodName,
    condition: int,
) -> HierarchyParts:
    """Generative and inference part with `counts` levels at each resolution, from 1 x 1 down.

    Raises ValueError for sizes below what works.
    """
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    if width < 2:
        raise ValueError(f"Expected width >= 2, got {width}.")
    shape_out = (Likelihood.channels_of(data, likelihood), *data.shape[1:])
    net = TopDown(
        data.shape,
        shape_out,
        width,
        latent,
        counts,
        depth=depth,
        condition=condition,
        sees_stream=merge == "concat",
    )
    ladder = Ladder(net, BottomUp(data.shape, width, counts, depth, condition), merge, condition)
    read = Likelihood(Outputs(ladder), data, likelihood, condition)
    return HierarchyParts(Hierarchy(ladder, LadderPrior(ladder), read), Inference(latent=LadderPosterior(ladder)))


def places(data: DataSpec, depth: int) -> int:
    """Resolutions from 1 x 1 down at which levels are cheap: all but that of the image itself.

    >>> places(DataSpec((1, 28, 28), 256), 0), places(DataSpec((5,)), 0)
    (3, 1)
    """
    if len(data.shape) == 1 and depth:
        raise ValueError(f"depth is for images (C, H, W); this data has shape {data.shape}: leave it 0.")
    if depth < 0:
        raise ValueError(f"Expected depth >= 0 (0: chosen by the data), got {depth}.")
    return max(1, len(resolutions(data.shape, depth)) - 1)
