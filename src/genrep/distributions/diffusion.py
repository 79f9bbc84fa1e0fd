"""Diffusion models: a fixed chain from data to noise, and a learnt one back (Ho et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Cells, Gaussian, kl
from genrep.distributions.guidance import ClassifierFree
from genrep.distributions.latent import Ancestral
from genrep.distributions.ode import TraceName, solve_with_divergence, stages
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import SAMPLERS, Denoise, Denoised, SamplerName, invert
from genrep.distributions.schedules import Chain, Spacing
from genrep.naming import choose
from genrep.nets.condition import encode_condition

Prediction = Literal["epsilon", "x0", "v"]
Variance = Literal["learnt", "beta", "posterior"]


class Denoiser(Conditional):
    """denoiser(x_t, t, y) -> Denoised, from a network (x_t, t, c) -> (B, C, ...), or (B, 2 C, ...) for learnt variance.

    The network predicts the noise eps, the data x_0, or v = a eps - s x_0 (Salimans & Ho, 2022, section 4), where
    x_t = a x_0 + s eps. Its second half is the variance's interpolation, from [-1, 1] to [0, 1]. In training, a share
    `unconditional` of the conditions is hidden, so that guidance knows both estimates.
    """

    can_sample = False

    def __init__(
        self,
        net: nn.Module,
        process: VariancePreserving,
        prediction: Prediction = "epsilon",
        variance: Variance = "learnt",
        condition: int = 0,
        unconditional: float = 0.0,
    ) -> None:
        super().__init__()
        self.net, self.process, self.prediction, self.variance = net, process, prediction, variance
        self.unconditional = unconditional
        self.condition_width, self.reads_y = condition, condition > 0

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        if c is not None and self.training and self.unconditional:
            c = c * (torch.rand(len(c), 1, device=c.device) >= self.unconditional)
        return self.read(x, self.net(x, t, c), t)

    def read(self, x: Tensor, out: Tensor, t: Tensor) -> Denoised:
        """What the network's output at x_t = x means."""
        out = out.to(x.dtype)
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
    x_0 are clipped to [-1, 1]; without, it is a Gaussian density. shape: of one example. `guidable`: the denoiser also
    knows what to do without its condition.
    """

    def __init__(
        self,
        denoiser: Conditional,
        chain: Chain,
        shape: tuple[int, ...],
        levels: int | None = None,
        *,
        guidable: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser, self.chain, self.shape, self.levels, self.guidable = denoiser, chain, shape, levels, guidable
        self.reads_y, self.measure = denoiser.reads_y, "density" if levels is None else "mass"

    def denoise(self, x: Tensor, t: Tensor, y: Tensor | None, guidance: float = 1.0) -> Denoised:
        """The estimate of x_0 as sampling and the bound use it: clipped where the data are bounded."""
        denoiser = self.denoiser if guidance == 1 else ClassifierFree(self.denoiser, guidance)
        found = denoiser(x, t, y=y)
        assert isinstance(found, Denoised)
        return found if self.levels is None else Denoised(found.mean.clamp(-1, 1), found.interpolation)

    def forward(
        self,
        *,
        y: Tensor | None = None,
        sampler: SamplerName = "ancestral",
        evaluations: int = 0,
        guidance: float = 1.0,
        eta: float = 0.0,
        churn: float = 0.0,
        spacing: Spacing = "time",
    ) -> Ancestral:
        """How samples are drawn.

        Args:
            sampler: ancestral draws every step; ddim, heun, dpm_solver, ode follow the probability-flow equation.
            evaluations: Of the network per sample; 0: all for ancestral, 50 ddim, 39 heun, 20 dpm_solver, 41 ode.
            guidance: Above 1, samples show their condition more plainly and vary less; each evaluation costs double.
            eta: Noise of ddim: 0 none, 1 as much as ancestral.
            churn: Noise of heun: how much is added over all steps, e.g. 20.
            spacing: Where few steps lie: even in time, or in the logarithm of the signal-to-noise ratio.
        """
        how = {"sampler": sampler, "evaluations": evaluations, "guidance": guidance, "eta": eta, "churn": churn}
        used, found = self.evaluations(**how), SAMPLERS[sampler]  # pyright: ignore[reportArgumentType]
        chain = self.chain.respaced(found.steps(used), "log_snr" if found.spaced else spacing)
        option = {found.option: how[found.option]} if found.option else {}

        def draw(n: int) -> Tensor:
            x = torch.randn(n, *self.shape, device=chain.t.device, dtype=chain.t.dtype)
            return found.walk(self.along(chain, y, guidance), x, chain, **option)

        return Ancestral(draw, None if y is None else len(y))

    def along(self, chain: Chain, y: Tensor | None, guidance: float = 1.0) -> Denoise:
        """The denoiser as samplers call it on `chain`, which is this model's or a respaced one."""

        def denoise(x: Tensor, k: int | Tensor) -> Denoised:
            t = chain.t[k] if isinstance(k, int) else self.chain.time_of(k)
            return self.denoise(x, t.float().expand(len(x)), y, guidance)

        return denoise

    def evaluations(
        self,
        *,
        sampler: SamplerName = "ancestral",
        evaluations: int = 0,
        guidance: float = 1.0,
        eta: float = 0.0,
        churn: float = 0.0,
        spacing: Spacing = "time",
    ) -> int:
        choose(sampler, SAMPLERS, "sampler")
        if guidance != 1 and not self.guidable:
            raise ValueError("Guidance needs a model trained with conditional=True and unconditional > 0, e.g. 0.1.")
        how, most = SAMPLERS[sampler], SAMPLERS[sampler].evaluations(self.chain.steps)
        for name, value in (("eta", eta), ("churn", churn)):
            if not value >= 0 or (value and how.option != name):
                owner = next(s for s in SAMPLERS if SAMPLERS[s].option == name)
                raise ValueError(
                    f"Expected {name} >= 0, and sampler={owner} if it is not 0, got {value} and {sampler}."
                )
        if not 0 <= evaluations <= most:
            raise ValueError(
                f"Expected 1 to {most} evaluations (0: the usual), got {evaluations}: the chain has {self.chain.steps} "
                f"steps, and {sampler} takes no more than that."
            )
        return how.evaluations(how.steps(evaluations or min(how.usual or most, most)))

    @torch.no_grad()
    def invert(self, x: Tensor, y: Tensor | None = None, *, steps: int = 50, corrections: int = 0) -> Tensor:
        """The x_T from which ddim in as many steps comes back to x, both inside the domain (see `samplers.invert`)."""
        chain = self.chain.respaced(min(steps, self.chain.steps))
        return invert(self.along(chain, y), x, chain, corrections)

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

    # ---- the probability-flow equation -------------------------------------------------------------------------------

    def ode(self, x: Tensor, y: Tensor | None, *, evaluations: int = 200, trace: TraceName = "hutchinson") -> Tensor:
        """Estimate of log p(x), (B,) nats, a density, without gradient: that of the flow which samples follow.

        dx / dl = a (a x - x_0(x)) along l = log(s / a), from the first point of the chain, where x is taken as x_0, to
        its last (Song et al., 2021, eq. 39). `evaluations`: of the network, each with its backward pass, or one for
        each dimension if trace=exact.
        """
        if evaluations < stages("rk4"):
            raise ValueError(f"Expected at least {stages('rk4')} evaluations, got {evaluations}.")
        ratio = self.chain.sigma[1:].log() - self.chain.alpha[1:].log()
        grid = torch.linspace(float(ratio[0]), float(ratio[-1]), evaluations // stages("rk4") + 1).to(x)

        def field(x: Tensor, ratio: Tensor) -> Tensor:
            log = -nn.functional.softplus(2 * ratio)  # log a^2
            t = self.chain.time_of(log)
            found, alpha = self.denoiser(x, t.float().expand(len(x)), y=y), (log / 2).exp()
            return alpha * (alpha * x - found.mean)

        alpha = self.chain.alpha[1]
        end, change = solve_with_divergence(field, alpha * x, grid, trace=trace)
        standard = Gaussian(torch.zeros_like(end), torch.zeros_like(end))
        return standard.log_prob(end) + change + x[0].numel() * alpha.log()

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        return {"vlb": Way(self.vlb, "lower bound", self.measure), "ode": Way(self.ode, "estimate", "density")}
