"""Diffusion models: a fixed chain from data to noise, and a learnt one back (Ho et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Cells, Gaussian, kl
from genrep.distributions.latent import Ancestral
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import SAMPLERS, Denoised, SamplerName
from genrep.distributions.schedules import Chain
from genrep.nets.condition import encode_condition

Prediction = Literal["epsilon", "x0", "v"]
Variance = Literal["learnt", "beta", "posterior"]


class Denoiser(Conditional):
    """denoiser(x_t, t, y) -> Denoised, from a network (x_t, t, c) -> (B, C, ...), or (B, 2 C, ...) for learnt variance.

    The network predicts the noise eps, the data x_0, or v = a eps - s x_0 (Salimans & Ho, 2022, section 4), where
    x_t = a x_0 + s eps. Its second half is the variance's interpolation, from [-1, 1] to [0, 1].
    """

    can_sample = False

    def __init__(
        self,
        net: nn.Module,
        process: VariancePreserving,
        prediction: Prediction = "epsilon",
        variance: Variance = "learnt",
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.net, self.process, self.prediction, self.variance = net, process, prediction, variance
        self.condition_width, self.reads_y = condition, condition > 0

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        out = self.net(x, t, c).to(x.dtype)
        interpolation: Tensor | float = 1.0 if self.variance == "beta" else 0.0
        if self.variance == "learnt":
            out, fraction = out.chunk(2, 1)
            interpolation = (fraction + 1) / 2
        return Denoised(self.start(x, out, t), interpolation)

    def start(self, x: Tensor, out: Tensor, t: Tensor) -> Tensor:
        """x_0 from what the network predicts."""
        if self.prediction == "x0":
            return out
        alpha, sigma = self.process.scales(t, x)
        return (x - sigma * out) / alpha if self.prediction == "epsilon" else alpha * x - sigma * out


class NetworkFeatures(nn.Module):
    """(x_t, t) -> {layer: (B, d)} from the denoiser's own network, with the condition unknown."""

    def __init__(self, net: nn.Module, condition: int = 0) -> None:
        super().__init__()
        self.net, self.condition_width = net, condition

    def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        c = encode_condition(None, self.condition_width, x) if self.condition_width else None
        features: Any = self.net.features
        return {name: layer.float() for name, layer in features(x, t, c).items()}


class Diffusion(Conditional):
    """x_T ~ N(0, I), x_(k-1) ~ N(c0 x_0(x_k) + ck x_k, variance) with x_0(x_k) from the denoiser; x = x_0.

    With `levels`, p(x_0 | x_1) is a mass over the cells around the levels (Ho et al., 2020, eq. 13), and estimates of
    x_0 are clipped to [-1, 1]; without, it is a Gaussian density. shape: of one example.
    """

    def __init__(self, denoiser: Conditional, chain: Chain, shape: tuple[int, ...], levels: int | None = None) -> None:
        super().__init__()
        self.denoiser, self.chain, self.shape, self.levels = denoiser, chain, shape, levels
        self.reads_y, self.measure = denoiser.reads_y, "density" if levels is None else "mass"

    def denoise(self, x: Tensor, t: Tensor, y: Tensor | None) -> Denoised:
        """The estimate of x_0 as sampling and the bound use it: clipped where the data are bounded."""
        found = self.denoiser(x, t, y=y)
        assert isinstance(found, Denoised)
        return found if self.levels is None else Denoised(found.mean.clamp(-1, 1), found.interpolation)

    def forward(
        self, *, y: Tensor | None = None, sampler: SamplerName = "ancestral", evaluations: int = 0
    ) -> Ancestral:
        """`evaluations`: network evaluations per sample; 0: every step for ancestral, 50 for ddim."""
        chain = self.chain.respaced(self.evaluations(sampler=sampler, evaluations=evaluations))
        walk, _ = SAMPLERS[sampler]

        def draw(n: int) -> Tensor:
            def denoise(x: Tensor, k: int) -> Denoised:
                return self.denoise(x, chain.t[k].float().expand(n), y)

            return walk(denoise, torch.randn(n, *self.shape, device=chain.t.device, dtype=chain.t.dtype), chain)

        return Ancestral(draw, None if y is None else len(y))

    def evaluations(self, *, sampler: SamplerName = "ancestral", evaluations: int = 0) -> int:
        if sampler not in SAMPLERS:
            raise ValueError(f"Unknown sampler {sampler!r}. Valid: {', '.join(SAMPLERS)}.")
        if not 0 <= evaluations <= self.chain.steps:
            raise ValueError(f"Expected 1 to {self.chain.steps} evaluations (0: the usual), got {evaluations}.")
        return evaluations or min(SAMPLERS[sampler][1] or self.chain.steps, self.chain.steps)

    # ---- the variational bound ---------------------------------------------------------------------------------------

    def term(self, x: Tensor, noisy: Tensor, k: Tensor, found: Denoised) -> Tensor:
        """Step k of the bound at x_k = noisy, (B,) nats (Ho et al., 2020, eq. 5).

        k > 1: KL(q(x_(k-1) | x_k, x_0) || p(x_(k-1) | x_k)); k = 1: -log p(x_0 | x_1).
        """
        model = self.chain.reverse(noisy, found.mean, k, found.interpolation)
        divergence = kl(self.chain.reverse(noisy, x, k), model)
        assert divergence is not None
        last = model if self.levels is None else Cells(model.mean, model.log_std, self.levels, "normal")
        return torch.where(k == 1, -last.log_prob(x), divergence)

    def prior_term(self, x: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)), (B,) nats; nothing in it is learnt."""
        end = torch.ones(len(x), device=x.device)
        found = kl(VariancePreserving(self.chain)(x, end), Gaussian(torch.zeros_like(x), torch.zeros_like(x)))
        assert found is not None
        return found

    @torch.no_grad()
    def step_terms(self, x: Tensor, y: Tensor | None, k: Tensor) -> Tensor:
        """Terms of the steps k (S, B) of each example, (S, B) nats, with one draw of noise each."""
        per_pass = max(1, 512 // len(x))
        return torch.cat([self._some_terms(x, y, part) for part in k.split(per_pass)])

    def _some_terms(self, x: Tensor, y: Tensor | None, k: Tensor) -> Tensor:
        s, flat = len(k), k.flatten()
        x = x.repeat(s, *[1] * (x.ndim - 1))
        y = None if y is None else y.repeat(s, *[1] * (y.ndim - 1))
        noisy = self.chain.at("alpha", flat, x) * x + self.chain.at("sigma", flat, x) * torch.randn_like(x)
        return self.term(x, noisy, flat, self.denoise(noisy, self.chain.t[flat].float(), y)).unflatten(0, (s, -1))

    def vlb_terms(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(T + 1, B) nats: row k - 1 is the term of step k, the last row the prior's; minus their sum is the bound."""
        k = torch.arange(1, self.chain.steps + 1, device=x.device)[:, None].expand(-1, len(x))
        return torch.cat([self.step_terms(x, y, k), self.prior_term(x)[None]])

    def vlb(self, x: Tensor, y: Tensor | None, *, evaluations: int = 0) -> Tensor:
        """Lower bound of log p(x), (B,) nats, without gradient.

        `evaluations`: 0 computes the term of every step; n >= 2 computes that of step 1 and one random step from each
        of n - 1 equal strata of the others, weighted by their sizes: an unbiased estimate of the same bound.
        """
        steps = self.chain.steps
        if not evaluations or evaluations == steps:
            return -self.vlb_terms(x, y).sum(0)
        if not 2 <= evaluations <= steps:
            raise ValueError(f"Expected 2 to {steps} evaluations (0: all {steps}), got {evaluations}.")
        edges = torch.linspace(2, steps + 1, evaluations, device=x.device, dtype=torch.float64).round().long()
        size = edges.diff()[:, None]
        u = torch.rand(evaluations - 1, len(x), device=x.device)
        drawn = edges[:-1, None] + torch.minimum((u * size).long(), size - 1)
        terms = self.step_terms(x, y, torch.cat([torch.ones_like(drawn[:1]), drawn]))
        return -(terms[0] + (size * terms[1:]).sum(0) + self.prior_term(x))

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        return {"vlb": Way(self.vlb, "lower bound", self.measure)}
