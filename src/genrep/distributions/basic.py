"""The distributions that parts return: whole examples as events, log-probabilities summed over them.

torch's own, wrapped in `Independent`, break a compiled graph and cost a Python call per element type; these do not, and
their KL divergences are found in a table by exact types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.nets.levels import level_of, level_value

_FAR = 1e4  # scales from the mean that stand for infinity, where derivatives would not be numbers


class Event(Distribution):
    """A distribution over examples: parameters (*batch, *event), with a batch of at most one dimension."""

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(self, parameter: Tensor, batched: bool) -> None:
        k = 1 if batched else 0
        super().__init__(parameter.shape[:k], parameter.shape[k:], validate_args=False)

    def over_event(self, values: Tensor) -> Tensor:
        """Sum over the event: (*sample, *batch, *event) -> (*sample, *batch)."""
        return values.flatten(values.ndim - len(self.event_shape)).sum(-1) if self.event_shape else values


class Point(Event):
    """All mass at one value; what a deterministic encoder or decoder returns. It has no density."""

    has_rsample = True

    def __init__(self, value: Tensor, *, batched: bool = True) -> None:
        super().__init__(value, batched)
        self.value = value

    @property
    def mean(self) -> Tensor:
        return self.value

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.value.expand(*sample_shape, *self.value.shape)


class Gaussian(Event):
    """Independent normals: mean and log standard deviation, each (*batch, *event)."""

    has_rsample = True

    def __init__(self, mean: Tensor, log_std: Tensor, *, batched: bool = True) -> None:
        super().__init__(mean, batched)
        self._mean, self.log_std = mean, log_std.expand_as(mean)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def stddev(self) -> Tensor:
        return self.log_std.exp()

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_std).exp()

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        mean = self._mean.expand(*sample_shape, *self._mean.shape)
        return mean + self.stddev * torch.randn_like(mean)

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self._mean) * (-self.log_std).exp()
        return self.over_event(-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        return self.over_event(self.log_std + 0.5 * math.log(2 * math.pi * math.e))


class Bernoulli(Event):
    """Independent bits with the given logits. On values between 0 and 1 log_prob is an improper cross-entropy."""

    def __init__(self, logits: Tensor, *, batched: bool = True) -> None:
        super().__init__(logits, batched)
        self.logits = logits

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return torch.bernoulli(self.mean.expand(*sample_shape, *self.logits.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.logits.expand_as(value)
        return self.over_event(-F.binary_cross_entropy_with_logits(logits, value, reduction="none"))


class Cells(Event):
    """A location-scale family cut into K cells, centred at 2 k / (K - 1) - 1; the outer cells take the tails.

    P(x) = F((x + h - m) / s) - F((x - h - m) / s) with h = 1 / (K - 1): a mass over the K levels, which sums to one.
    F is the logistic function (PixelCNN++, Salimans et al., 2017, eq. 2) or the normal distribution (DDPM, Ho et al.,
    2020, eq. 13).
    """

    def __init__(
        self,
        mean: Tensor,
        log_scale: Tensor,
        levels: int,
        family: Literal["logistic", "normal"] = "logistic",
        *,
        batched: bool = True,
    ) -> None:
        super().__init__(mean, batched)
        self._mean, self.log_scale, self.levels, self.family = mean, log_scale.expand_as(mean), levels, family
        self.log_cells = {"logistic": logistic_cells, "normal": _normal_cells}[family]

    @property
    def mean(self) -> Tensor:
        return self._mean.clamp(-1, 1)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            mean = self._mean.expand(*sample_shape, *self._mean.shape)
            noise = torch.randn_like(mean) if self.family == "normal" else logistic_noise(torch.rand_like(mean))
            return level_value(level_of(mean + self.log_scale.exp() * noise, self.levels), mean, self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.over_event(self.log_cells(value, self._mean, self.log_scale, self.levels))


class Categories(Event):
    """Independent levels 2 k / (K - 1) - 1 with free probabilities: logits (*batch, *event, K)."""

    draws = 1  # uniform numbers that one value costs

    def __init__(self, logits: Tensor, *, batched: bool = True) -> None:
        super().__init__(logits[..., 0], batched)
        self.logits, self.levels = logits, logits.shape[-1]

    @property
    def mean(self) -> Tensor:
        return level_value(
            self.logits.softmax(-1) @ torch.arange(self.levels).to(self.logits), self.logits, self.levels
        )

    def draw(self, u: Tensor) -> Tensor:
        """Values from uniform numbers (*batch, *event, 1), by inverting the distribution function."""
        below = self.logits.softmax(-1).cumsum(-1)
        level = (u * below[..., -1:] >= below).sum(-1).clamp_max(self.levels - 1)
        return level_value(level, self.logits, self.levels)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            shape = (*sample_shape, *self.logits.shape[:-1], self.draws)
            return self.draw(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.logits.log_softmax(-1).expand(*value.shape, self.levels)
        return self.over_event(logits.gather(-1, level_of(value, self.levels).unsqueeze(-1)).squeeze(-1))


class CellMixture(Event):
    """Independent mixtures of M logistics cut into K cells (PixelCNN++, Salimans et al., 2017, eq. 1-2).

    weight (logits), mean and log_scale, each (*batch, *event, M).
    """

    draws = 2

    def __init__(self, weight: Tensor, mean: Tensor, log_scale: Tensor, levels: int, *, batched: bool = True) -> None:
        super().__init__(mean[..., 0], batched)
        self.weight, self.location, self.log_scale, self.levels = weight, mean, log_scale, levels

    @property
    def mean(self) -> Tensor:
        return (self.weight.softmax(-1) * self.location.clamp(-1, 1)).sum(-1)

    def draw(self, u: Tensor) -> Tensor:
        """Values from uniform numbers (*batch, *event, 2): the first chooses the component, the second its value."""
        below = self.weight.softmax(-1).cumsum(-1)
        component = (u[..., :1] * below[..., -1:] >= below).sum(-1, keepdim=True).clamp_max(below.shape[-1] - 1)
        shape = (*component.shape[:-1], below.shape[-1])
        mean, log_scale = (p.expand(shape).gather(-1, component)[..., 0] for p in (self.location, self.log_scale))
        x = mean + log_scale.exp() * logistic_noise(u[..., 1])
        return level_value(level_of(x, self.levels), mean, self.levels)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            shape = (*sample_shape, *self.location.shape[:-1], self.draws)
            return self.draw(torch.rand(shape, dtype=self.location.dtype, device=self.location.device))

    def log_prob(self, value: Tensor) -> Tensor:
        cells = logistic_cells(value.unsqueeze(-1), self.location, self.log_scale, self.levels)
        return self.over_event((self.weight.log_softmax(-1) + cells).logsumexp(-1))


def logistic_noise(u: Tensor) -> Tensor:
    """Standard logistic numbers from uniform ones."""
    u = u.clamp(1e-7, 1 - 1e-7)
    return u.log() - (-u).log1p()


def logistic_cells(value: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log(sigmoid(b) - sigmoid(a)) of the cell [a, b] around each level, elementwise; outer cells reach to infinity."""
    return _LogisticCells.apply(*torch.broadcast_tensors(value, mean, log_scale), 1 / (levels - 1))  # pyright: ignore[reportReturnType]


class _LogisticCells(torch.autograd.Function):
    """log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)) of tensors of one shape, its gradient in closed form.

    With respect to a it is -sigmoid(a) - 1 / (exp(b - a) - 1), to b sigmoid(-b) + 1 / (exp(b - a) - 1). Half the time
    of automatic differentiation, which decoders of images notice.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, mean: Tensor, log_scale: Tensor, half: float) -> Tensor:
        inverse = torch.exp(-log_scale)
        centre, width = (value - mean).mul_(inverse), inverse * half
        first, last = value < -1 + half, value > 1 - half
        low = (centre - width).masked_fill_(first, -_FAR)
        high = (centre + width).masked_fill_(last, _FAR)
        share = torch.expm1(-2 * width).neg_().masked_fill_(first | last, 1.0).clamp_min_(1e-38)
        ctx.save_for_backward(inverse, centre, low, high, share)
        ctx.half = half
        return F.logsigmoid(high).add_(F.logsigmoid(-low)).add_(share.log())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        inverse, centre, low, high, share = ctx.saved_tensors
        above, below = torch.sigmoid(-high), torch.sigmoid(low)
        by_centre = above - below
        by_width = above.add_(below).add_(share.reciprocal().sub_(1).mul_(2))
        by_log_scale = (by_centre * centre).addcmul_(by_width, inverse, value=ctx.half).mul_(-outer[0])
        by_value = by_centre.mul_(inverse).mul_(outer[0])
        return by_value, -by_value, by_log_scale, None


def _normal_cells(value: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log(Phi(b) - Phi(a)) of the cell [a, b] around each level, elementwise; outer cells reach to infinity."""
    half = 1 / (levels - 1)
    inverse = (-log_scale).exp()
    low = torch.where(value < -1 + half, -torch.inf, (value - half - mean) * inverse)
    high = torch.where(value > 1 - half, torch.inf, (value + half - mean) * inverse)
    flip = low + high > 0  # the interval is moved to the left of zero, where both numbers are small: nothing cancels
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_a, log_b = torch.special.log_ndtr(a.clamp_min(-_FAR)), torch.special.log_ndtr(b.clamp(-_FAR, _FAR))
    gap = torch.where(torch.isinf(a), _FAR, (log_b - log_a)).clamp(1e-12, _FAR)
    return log_b + _log1mexp(gap)


def _log1mexp(d: Tensor) -> Tensor:
    """log(1 - exp(-d)) for d > 0, accurate at both ends."""
    return torch.where(d < 0.693, (-torch.expm1(-d)).clamp_min(1e-38).log(), torch.log1p(-torch.exp(-d.clamp_min(0.5))))


def _gaussian_gaussian(q: Gaussian, p: Gaussian) -> Tensor:
    ratio = (2 * (q.log_std - p.log_std)).exp()
    distance = (q.mean - p.mean).square() * (-2 * p.log_std).exp()
    return q.over_event(0.5 * (ratio + distance - 1) - q.log_std + p.log_std)


KL: dict[tuple[type, type], Callable[..., Tensor]] = {(Gaussian, Gaussian): _gaussian_gaussian}


def kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) in nats, (B,), where a closed form is known by exact types; else None, and one samples."""
    form = KL.get((type(q), type(p)))
    return None if form is None else form(q, p)
