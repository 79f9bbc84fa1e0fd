"""Latent-variable models: p(x) = integral of p(z) p(x | z) dz."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, Inference, Unsupported, Way
from genrep.distributions.basic import Gaussian, kl


class StandardNormal(Conditional):
    """p(z) = N(0, I) over z of the given shape."""

    zero: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(shape), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Gaussian:
        return Gaussian(self.zero, self.zero, batched=False)


class Ancestral(Distribution):
    """What can be drawn but not scored: `draw(n)` gives n examples; with a condition, one for each of `batch`."""

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(self, draw: Callable[[int], Tensor], batch: int | None) -> None:
        super().__init__(torch.Size(() if batch is None else (batch,)), validate_args=False)
        self.draw, self.batch = draw, batch

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return self.drawn(sample_shape)

    def drawn(self, sample_shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Draws that keep whatever gradient `draw` has."""
        n = torch.Size(sample_shape).numel()
        if self.batch is not None and n != 1:
            raise ValueError("With a condition there is one draw for each example; repeat the condition instead.")
        x = self.draw(n if self.batch is None else self.batch)
        return x if self.batch is not None else x.reshape(*sample_shape, *x.shape[1:])


class Reparametrised(Ancestral):
    """What can be drawn, with gradients to what made it, but not scored."""

    has_rsample = True

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.drawn(sample_shape)


def rate(q: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q || prior), (B,) nats: in closed form where one is known, else its unbiased estimate at z ~ q."""
    closed = kl(q, prior)
    return q.log_prob(z) - prior.log_prob(z) if closed is None else closed


def draws(prior: Distribution, n: int) -> Tensor:
    """n draws, with their gradients where the prior has them: one for each condition, or n of one law."""
    shape = () if prior.batch_shape else (n,)
    return prior.rsample(shape) if prior.has_rsample else prior.sample(shape)


class Decoded(Conditional):
    """p(x | z, y) alone, the generative part of an autoencoder without a prior: it decodes, and cannot sample."""

    can_sample = False

    def __init__(self, likelihood: Conditional) -> None:
        super().__init__()
        self.likelihood, self.reads_y, self.measure = likelihood, likelihood.reads_y, likelihood.measure

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        raise Unsupported("Without a prior there is no p(x); call .likelihood(z).")


class LatentVariable(Conditional):
    """z ~ p(z | y), x ~ p(x | z, y)."""

    def __init__(self, prior: Conditional, likelihood: Conditional) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood
        self.reads_y = prior.reads_y or likelihood.reads_y
        self.measure = likelihood.measure

    def forward(self, *, y: Tensor | None = None, pixels: Literal["mean", "draw"] = "mean") -> Ancestral:
        """`pixels`: the mean of p(x | z), as is usual for pictures, or a draw from it, which is what bits describe."""
        return self.decoded(self.prior(y=y), y, pixels)

    def decoded(self, prior: Distribution, y: Tensor | None, pixels: Literal["mean", "draw"]) -> Ancestral:
        """x from draws of that prior."""
        if pixels not in ("mean", "draw"):
            raise ValueError(f"Expected pixels='mean' or 'draw', got {pixels!r}.")

        def draw(n: int) -> Tensor:
            x = self.likelihood(draws(prior, n), y=y)
            return x.mean if pixels == "mean" else x.sample()

        return Ancestral(draw, None if y is None else len(y))

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """elbo: E_q log p(x | z) - KL(q || p). importance: the bound of `draws` samples (Burda et al., 2016, eq. 8)."""
        if "latent" not in inference or "improper" in (self.measure, self.prior.measure):
            return {}
        if self.prior.measure != inference.latent.measure:  # their ratio would mean nothing
            return {}

        def elbo(x: Tensor, y: Tensor | None, *, draws: int = 1) -> Tensor:
            def once() -> Tensor:
                q, prior = inference.latent(x, y=y), self.prior(y=y)
                z = q.rsample()
                return self.likelihood(z, y=y).log_prob(x) - rate(q, prior, z)

            return torch.stack([once() for _ in range(draws)]).mean(0)

        def importance(x: Tensor, y: Tensor | None, *, draws: int = 64) -> Tensor:
            q, prior = inference.latent(x, y=y), self.prior(y=y)

            def weight() -> Tensor:
                z = q.sample()
                return self.likelihood(z, y=y).log_prob(x) + prior.log_prob(z) - q.log_prob(z)

            return torch.stack([weight() for _ in range(draws)]).logsumexp(0) - math.log(draws)

        return {
            "elbo": Way(elbo, "lower bound", self.measure),
            "importance": Way(importance, "lower bound", self.measure),
        }
