"""Training of diffusion models: denoise x_t at random times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.diffusion import Diffusion, Prediction
from genrep.distributions.samplers import Denoised

LossName = Literal["simple", "vlb", "hybrid"]


class Denoising(Objective):
    """simple: the squared error of `error` (eps, x_0 or v) per value, each step alike (Ho et al., 2020, eq. 14).

    vlb: T times the bound's term of a random step, in nats per value: an unbiased estimate of minus the bound, but for
    its constant. hybrid: simple + 0.001 vlb, where vlb teaches the variance alone (Nichol & Dhariwal, 2021, eq. 16).
    Steps are drawn uniformly and spread evenly over the batch (Kingma et al., 2021, appendix I.1).
    """

    def __init__(
        self, loss: LossName = "simple", error: Prediction = "epsilon", weights: Mapping[str, float] | None = None
    ) -> None:
        self.terms = {"simple": {"simple": 1.0}, "vlb": {"vlb": 1.0}, "hybrid": {"simple": 1.0, "vlb": 0.001}}[loss]
        super().__init__(weights, learns=("generative.denoiser",))
        self.loss: LossName = loss
        self.error: Prediction = error

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        diffusion = cast(Diffusion, model.generative)
        x = model.domain.inward(batch.x)
        chain = diffusion.chain
        k = spread(len(x), chain.steps, x.device)
        alpha, sigma = chain.at("alpha", k, x), chain.at("sigma", k, x)
        noisy = alpha * x + sigma * torch.randn_like(x)
        found = diffusion.denoiser(noisy, chain.t[k].float(), y=batch.y)
        terms: Terms = {}
        if "simple" in self.terms:
            error = (scale_of(self.error, alpha, sigma) * (found.mean - x)).square()
            terms["simple"] = error.flatten(1).mean(1)
        if "vlb" in self.terms:
            estimate = found.mean.detach() if self.loss == "hybrid" else found.mean
            term = diffusion.term(x, noisy, k, Denoised(estimate, found.interpolation))
            terms["vlb"] = chain.steps / x[0].numel() * term
        return terms


def spread(n: int, steps: int, device: torch.device) -> Tensor:
    """n steps in 1..steps, each uniform, together evenly spread: floor(steps (u + i / n mod 1)) + 1, i = 0..n-1."""
    u = (torch.rand((), device=device) + torch.arange(n, device=device) / n) % 1
    return (u * steps).long().clamp_max(steps - 1) + 1


def scale_of(error: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What turns an error of x_0 into one of eps (a / s), x_0 (1) or v (1 / s), for a^2 + s^2 = 1."""
    if error == "x0":
        return torch.ones_like(alpha)
    return alpha / sigma if error == "epsilon" else 1 / sigma
