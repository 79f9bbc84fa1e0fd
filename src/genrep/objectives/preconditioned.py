"""The loss of Karras et al. (2022): noise levels around those that matter, errors weighted to equal size."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.schedules import Chain
from genrep.objectives.timesteps import draw


class PreconditionedDenoising(Objective):
    """error: (sigma^2 + d^2) / (sigma d)^2 |x_0 - estimate|^2 per value.

    log sigma ~ N(mean, std^2), on the chain's points; sigma = s / a and d = sigma_data. For a network that says nothing
    the error is 1 at every sigma where x has variance d^2 (Karras et al., 2022, table 1 and appendix B.6).
    """

    terms = {"error": 1.0}
    share: Tensor

    def __init__(self, chain: Chain, sigma_data: float, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__(learns=("generative.denoiser",))
        log_sigma = (chain.sigma[1:] / chain.alpha[1:]).log()
        width = torch.cat([log_sigma.diff(), log_sigma.diff()[-1:]])
        share = width * (-0.5 * ((log_sigma - mean) / std).square()).exp()
        self.register_buffer("share", share / share.sum(), persistent=False)
        self.sigma_data = sigma_data

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        diffusion, x = cast(Diffusion, model.generative), model.domain.inward(batch.x)
        chain, k = diffusion.chain, draw(self.share, len(x)) + 1
        alpha, s = chain.at("alpha", k, x), chain.at("sigma", k, x)
        found = diffusion.denoiser(alpha * x + s * torch.randn_like(x), chain.t[k].float(), y=batch.y)
        scale = (1 / self.sigma_data**2 + (alpha / s).square()).sqrt()
        return {"error": (scale * (found.mean - x)).square().flatten(1).mean(1)}
