"""Priors that are models: p(z) from a model whose examples are the latents of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from genrep.contracts import Conditional, Domain, Inference, Model, Way
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.latent import Ancestral, LatentVariable, draws
from genrep.distributions.samplers import SamplerName
from genrep.distributions.schedules import Spacing


class Nested(Conditional):
    """p(z | y) from `inner`, whose data are codes.inward(z).

    z is codes.outward of a sample; log p(z) is what `inner` can tell of it: its likelihood, or a lower bound. A
    `Domain` for z may discretise it (to entries of a codebook) or move it (to standard units).
    """

    def __init__(self, inner: Model, codes: Domain) -> None:
        super().__init__()
        self.inner, self.codes = inner, codes
        self.reads_y = inner.generative.reads_y
        way = self._way()
        self.measure = "improper" if way is None or way.kind == "estimate" else way.measure

    def _way(self) -> Way | None:
        """The inner model's first way to a likelihood."""
        return next(iter(self.inner.generative.likelihoods(self.inner.inference).values()), None)

    def forward(self, *, y: Tensor | None = None, **how: Any) -> NestedDistribution:
        """`how`: options of the inner model's sampling."""
        return NestedDistribution(self, y if self.reads_y else None, how)

    def log_prob(self, z: Tensor, y: Tensor | None, **how: Any) -> Tensor:
        """log p(z | y) or its bound, (B,) nats; `how`: options of the inner model's likelihood."""
        way, inward = self._way(), self.inner.domain.inward
        assert way is not None
        if way.measure != "density":
            return way.f(inward(self.codes.inward(z)), y, **how)
        inside, slope = self.codes.continuous(z)
        inside, further = self.inner.domain.continuous(inside)
        return way.f(inside, y, **how) + slope + further

    def evaluations(self, **how: Any) -> int:
        return self.inner.generative.evaluations(**how)


class NestedDistribution(Ancestral):
    """The latents of a nested model, batch shape () or that of the condition."""

    def __init__(self, prior: Nested, y: Tensor | None, how: Mapping[str, Any]) -> None:
        def draw(n: int) -> Tensor:
            inner = prior.inner
            return prior.codes.outward(inner.domain.outward(draws(inner.generative(y=y, **how), n)))

        super().__init__(draw, None if y is None else len(y))
        self.prior, self.y = prior, y

    def log_prob(self, value: Tensor) -> Tensor:
        return self.prior.log_prob(value, self.y)


class NestedVariable(LatentVariable):
    """z from a nested prior, x ~ p(x | z)."""

    def evaluations(self, **how: Any) -> int:
        """Those of the prior, and the decoder's one."""
        return self.prior.evaluations() + 1


class ElboOnly(NestedVariable):
    """Importance weights would gain nothing where x alone decides z, and prove nothing where log p(z) is a bound."""

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """elbo: E_q[log p(x | z) + log p(z) - log q(z | x)]; without a draw, log P(z(x)) + log P(x | z(x))."""
        return {name: way for name, way in super().likelihoods(inference).items() if name == "elbo"}


class LatentDiffusion(LatentVariable):
    """z from a diffusion model, x ~ p(x | z); the options of sampling reach the chain of z."""

    def __init__(self, prior: Nested, likelihood: Conditional) -> None:
        super().__init__(prior, likelihood)
        assert isinstance(prior.inner.generative, Diffusion)

    def forward(
        self,
        *,
        y: Tensor | None = None,
        pixels: Literal["mean", "draw"] = "mean",
        sampler: SamplerName = "ancestral",
        evaluations: int = 0,
        guidance: float = 1.0,
        eta: float = 0.0,
        churn: float = 0.0,
        spacing: Spacing = "time",
    ) -> Ancestral:
        """How samples are drawn: z by its chain, then x.

        Args:
            pixels: The mean of p(x | z), as is usual for pictures, or a draw from it.
            sampler: ancestral draws every step; ddim, heun, dpm_solver, ode follow the probability-flow equation.
            evaluations: Of the network of z per sample; 0: all for ancestral, 50 ddim, 39 heun, 20 dpm_solver, 41 ode.
            guidance: Above 1, samples show their condition more plainly and vary less; each evaluation costs double.
            eta: Noise of ddim: 0 none, 1 as much as ancestral.
            churn: Noise of heun: how much is added over all steps, e.g. 20.
            spacing: Where few steps lie: even in time, or in the logarithm of the signal-to-noise ratio.
        """
        how = {"evaluations": evaluations, "guidance": guidance, "eta": eta, "churn": churn, "spacing": spacing}
        return self.decoded(self.prior(y=y, sampler=sampler, **how), y, pixels)

    def evaluations(self, **how: Any) -> int:
        """Of the network of z; the decoder's one is not counted."""
        return self.prior.evaluations(**{k: v for k, v in how.items() if k != "pixels"})

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """elbo: E_q[log p(x | z) + bound of log p(z) - log q(z | x)] at one draw of z, `evaluations` of the chain."""
        if "elbo" not in super().likelihoods(inference):
            return {}

        def elbo(x: Tensor, y: Tensor | None, *, evaluations: int = 0) -> Tensor:
            q = inference.latent(x, y=y)
            z = q.rsample()
            prior: Any = self.prior
            return self.likelihood(z, y=y).log_prob(x) + prior.log_prob(z, y, evaluations=evaluations) - q.log_prob(z)

        return {"elbo": Way(elbo, "lower bound", self.measure)}
