"""Base distributions of flows besides the standard normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.contracts import Conditional
from genrep.distributions.basic import Event
from genrep.distributions.latent import StandardNormal
from genrep.distributions.priors import GaussianMixture

BaseName = Literal["normal", "mixture", "student"]


def base_of(name: BaseName, size: int, components: int = 10) -> Conditional:
    """Over (size,): N(0, I), a learnt mixture of Gaussians, or Student-t with learnt degrees of freedom."""
    if name not in get_args(BaseName):
        raise ValueError(f"Unknown base {name!r}. Valid: {', '.join(get_args(BaseName))}.")
    if name == "mixture":
        return GaussianMixture(size, components)
    return StandardNormal(size) if name == "normal" else StudentT(size)


class Student(Event):
    """Independent Student-t values with the given degrees of freedom (D,); inf: standard normal."""

    has_rsample = True

    def __init__(self, degrees: Tensor) -> None:
        super().__init__(degrees, batched=False)
        self.degrees = degrees

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.degrees)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """z / sqrt(g / df) with g chi-squared; the gradient with respect to the degrees is that of the draw."""
        df = self.degrees.clamp_max(1e6).expand(*sample_shape, *self.event_shape)
        chi = 2 * torch.distributions.Gamma(df / 2, torch.ones_like(df), validate_args=False).rsample()
        scale = torch.where(self.degrees.isinf(), 1, (chi / df).clamp_min(1e-30).rsqrt())
        return torch.randn_like(df) * scale

    def log_prob(self, value: Tensor) -> Tensor:
        light = self.degrees.isinf()
        df = torch.where(light, 1.0, self.degrees)
        log_constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        heavy = log_constant - (df + 1) / 2 * _log_one_plus_square(value, df)
        normal = -0.5 * torch.where(light, value, 0).square() - 0.5 * math.log(2 * math.pi)
        return self.over_event(torch.where(light, normal, heavy))


class StudentT(Conditional):
    """p(z) = prod_i t(z_i; df_i), a normal where df_i is 0 (light tail). `degrees`: (); learnt, from 10; else fixed.

    A learnt df = 1/2 + softplus(raw) is at least 1/2.
    """

    fixed: Tensor

    def __init__(self, size: int, degrees: Sequence[float] = ()) -> None:
        super().__init__()
        if degrees and len(degrees) != size:
            raise ValueError(f"Expected {size} degrees of freedom, one for each column, got {len(degrees)}.")
        if any(d < 0 or 0 < d < 0.1 or d != d for d in degrees):
            raise ValueError(
                f"Expected degrees of freedom of at least 0.1, or 0 for a light tail, got {list(degrees)}."
            )
        self.raw = None if degrees else nn.Parameter(torch.full((size,), 9.5))
        given = torch.tensor([math.inf if d == 0 else d for d in degrees] or [1.0] * size)
        self.register_buffer("fixed", given, persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Student:
        return Student(self.fixed if self.raw is None else 0.5 + F.softplus(self.raw))


class Uniform(Event):
    """Independent uniform values on [-b, b); points outside are taken as turned onto the circle."""

    has_rsample = True

    def __init__(self, zero: Tensor, box: float) -> None:
        super().__init__(zero, batched=False)
        self.zero, self.box = zero, box

    @property
    def mean(self) -> Tensor:
        return self.zero

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.box * (2 * torch.rand_like(self.zero.expand(*sample_shape, *self.zero.shape)) - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.over_event(torch.full_like(value, -math.log(2 * self.box)))


class Torus(Conditional):
    """p(z) uniform over D circles [-b, b)."""

    zero: Tensor

    def __init__(self, size: int, box: float = math.pi) -> None:
        super().__init__()
        self.box = box
        self.register_buffer("zero", torch.zeros(size), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Uniform:
        return Uniform(self.zero, self.box)


def _log_one_plus_square(value: Tensor, df: Tensor) -> Tensor:
    """log(1 + value^2 / df), which no finite value overflows."""
    size = value.abs()
    big = size > 1e15
    small = torch.where(big, 0, size)
    return torch.where(big, 2 * torch.where(big, size, 1).log() - df.log(), torch.log1p(small.square() / df))
