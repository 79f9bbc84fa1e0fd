"""Training of diffusion models: denoise x_t at random times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.samplers import Denoised
from genrep.objectives.timesteps import Uniform

LossName = Literal["simple", "vlb", "hybrid"]
ErrorName = Literal["epsilon", "x0", "v", "min_snr"]


class Drawn(NamedTuple):
    """Steps k (B,), the weights (B,) that correct for how they were chosen, x_k and its times (B,)."""

    k: Tensor
    weight: Tensor
    x: Tensor
    t: Tensor


class Denoising(Objective):
    """simple: the squared error of what `error` names per value, each step alike (Ho et al., 2020, eq. 14).

    vlb: T times the bound's term of a random step, in nats per value: an unbiased estimate of minus the bound, but for
    its constant. hybrid: simple + 0.001 vlb, where vlb teaches the variance alone (Nichol & Dhariwal, 2021, eq. 16).
    `steps`: how steps are chosen; the losses are corrected for it. `first`: whose error the first step's is, where it
    is another. `chain`: where the diffusion is; `learns`: what learns, by default its denoiser.
    """

    def __init__(
        self,
        steps: Uniform,
        loss: LossName = "simple",
        error: ErrorName = "epsilon",
        *,
        first: ErrorName | None = None,
        chain: str = "generative",
        learns: Sequence[str] = (),
    ) -> None:
        self.terms = {"simple": {"simple": 1.0}, "vlb": {"vlb": 1.0}, "hybrid": {"simple": 1.0, "vlb": 0.001}}[loss]
        super().__init__(learns=learns or (f"{chain}.denoiser",))
        self.steps, self.loss, self.chain = steps, loss, chain
        self.error: ErrorName = error
        self.first: ErrorName = first or error

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        diffusion, x = cast(Diffusion, model.get_submodule(self.chain)), model.domain.inward(batch.x)
        drawn = self.draw(diffusion, x)
        return self.losses(diffusion, x, drawn, diffusion.denoiser(drawn.x, drawn.t, y=batch.y))

    def draw(self, diffusion: Diffusion, x: Tensor) -> Drawn:
        """A random step for each example, and the example there."""
        chain = diffusion.chain
        k, weight = self.steps(len(x), x.device)
        noisy = chain.at("alpha", k, x) * x + chain.at("sigma", k, x) * torch.randn_like(x)
        return Drawn(k, weight, noisy, chain.t[k].float())

    def losses(self, diffusion: Diffusion, x: Tensor, drawn: Drawn, found: Denoised) -> Terms:
        """The terms of each example, (B,), from the estimates of x at what was drawn."""
        chain, k, terms = diffusion.chain, drawn.k, Terms()
        if "simple" in self.terms:
            alpha, sigma = chain.at("alpha", k, x), chain.at("sigma", k, x)
            scale = scale_of(self.error, alpha, sigma)
            if self.first != self.error:
                at_first = (k == 1).view(-1, *[1] * (x.ndim - 1))
                scale = torch.where(at_first, scale_of(self.first, alpha, sigma), scale)
            terms["simple"] = (scale * (found.mean - x)).square().flatten(1).mean(1)
        if "vlb" in self.terms:
            estimate = found.mean.detach() if self.loss == "hybrid" else found.mean
            term = diffusion.term(x, drawn.x, k, Denoised(estimate, found.interpolation))
            terms["vlb"] = chain.steps / x[0].numel() * term
        if self.training:
            self.steps.learn(k, torch.stack([self.weights[name] * value for name, value in terms.items()]).sum(0))
        return {name: drawn.weight * value for name, value in terms.items()}


def scale_of(error: ErrorName, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What turns an error of x_0 into one of eps (a / s), x_0 (1) or v (1 / s), for a^2 + s^2 = 1.

    min_snr: sqrt(min(a^2 / s^2, 5)), which is the error of eps until the noise is so small that tasks would conflict
    (Hang et al., 2023, section 3.4).
    """
    if error == "x0":
        return torch.ones_like(alpha)
    if error == "min_snr":
        return (alpha / sigma).clamp_max(5**0.5)
    return alpha / sigma if error == "epsilon" else 1 / sigma
