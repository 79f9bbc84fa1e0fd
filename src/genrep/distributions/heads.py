"""Networks turned into conditional distributions: posteriors and likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional, DataSpec, Domain
from genrep.distributions.basic import Bernoulli, Cells, Event, Gaussian, Point
from genrep.distributions.domains import Levels, domain_for
from genrep.nets.condition import encode_condition

LikelihoodName = Literal["auto", "logistic", "bernoulli", "gaussian", "squared_error"]


class GaussianHead(Conditional):
    """q(z | x, y) = N(mean, std) from a network with outputs (B, 2, *z); `condition` is the width of y, 0 if unread."""

    def __init__(self, net: nn.Module, condition: int = 0) -> None:
        super().__init__()
        self.net, self.condition_width, self.reads_y = net, condition, condition > 0

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Gaussian:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        mean, log_std = self.net(x, c).float().unbind(1)
        return Gaussian(mean, log_std.clamp(-10, 10))


class PointHead(Conditional):
    """All mass at onto(net(x, y)): a deterministic encoder, or the generator of a model without a likelihood."""

    measure = "improper"

    def __init__(self, net: nn.Module, condition: int = 0, onto: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.net, self.onto, self.condition_width, self.reads_y = net, onto, condition, condition > 0

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Point:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        value = self.net(x, c).float()
        return Point(value if self.onto is None else self.onto(value))


class Corrupted(Conditional):
    """q(z | x) that in train mode reads x after `corrupt`, and x itself afterwards (Vincent et al., 2008)."""

    def __init__(self, posterior: Conditional, corrupt: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.posterior, self.corrupt = posterior, corrupt
        self.reads_y, self.measure = posterior.reads_y, posterior.measure

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Distribution:
        return self.posterior(self.corrupt(x) if self.training else x, y=y)


class SquaredError(Event):
    """An explicit non-likelihood: log_prob is minus the squared distance to the mean, without a normaliser."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__(mean, batched=True)
        self._mean = mean

    @property
    def mean(self) -> Tensor:
        return self._mean

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self._mean.detach().expand(*sample_shape, *self._mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return -self.over_event((value - self._mean).square())


def likelihood_for(data: DataSpec, name: LikelihoodName) -> LikelihoodName:
    """The likelihood that fits the data, `auto` resolved: a mass over levels, a density over real values.

    >>> likelihood_for(DataSpec((1, 8, 8), levels=17), "auto")
    'logistic'
    """
    if name not in get_args(LikelihoodName):
        raise ValueError(f"Expected a likelihood of {list(get_args(LikelihoodName))}, got {name!r}.")
    if name == "auto":
        return "gaussian" if data.levels is None else "bernoulli" if data.levels == 2 else "logistic"
    if data.levels is None and name in ("logistic", "bernoulli"):
        raise ValueError(
            f"likelihood={name} needs integer data; these are real-valued: choose gaussian or squared_error."
        )
    return name


def likelihood_domain(data: DataSpec, name: LikelihoodName) -> Domain:
    """Where that likelihood computes: bits and grey values as probabilities in [0, 1], other levels in [-1, 1]."""
    if likelihood_for(data, name) == "bernoulli":
        assert data.levels is not None
        return Levels(data.levels, low=0.0)
    return domain_for(data)


class Likelihood(Conditional):
    """p(x | z, y) from a network with outputs (B, channels, ...), channels being `channels_of(data, name)`.

    logistic: cells of a logistic distribution, a mass (PixelCNN++, eq. 2). bernoulli: bits, a mass for 2 levels and
    improper for more. gaussian: N(mean, std) with learnt std, a density. squared_error: improper.
    """

    def __init__(self, net: nn.Module, data: DataSpec, name: LikelihoodName, condition: int = 0) -> None:
        super().__init__()
        self.net, self.name, self.levels = net, likelihood_for(data, name), data.levels or 0
        self.condition_width, self.reads_y = condition, condition > 0
        self.measure = {"logistic": "mass", "gaussian": "density", "squared_error": "improper"}.get(
            self.name, "mass" if self.levels == 2 else "improper"
        )  # pyright: ignore[reportAttributeAccessIssue]

    @staticmethod
    def channels_of(data: DataSpec, name: LikelihoodName) -> int:
        """Channels that the network must have: one or two parameters for each channel of the data."""
        return data.shape[0] * (2 if likelihood_for(data, name) in ("logistic", "gaussian") else 1)

    def forward(self, z: Tensor, *, y: Tensor | None = None) -> Distribution:
        c = encode_condition(y, self.condition_width, z) if self.reads_y else None
        return self.of(self.net(z, c))

    def of(self, out: Tensor) -> Distribution:
        """p(x | z, y) from what the network says, (B, channels, ...)."""
        out = out.float()
        if self.name == "bernoulli":
            return Bernoulli(out)
        if self.name == "squared_error":
            return SquaredError(out)
        mean, log_scale = out.chunk(2, 1)
        if self.name == "logistic":
            return Cells(mean, log_scale.clamp(-7, 4) - 2, self.levels)  # starts at about an eighth of the range
        return Gaussian(mean, log_scale.clamp(-7, 7))
