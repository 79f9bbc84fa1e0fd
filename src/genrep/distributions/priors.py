"""Priors of latent-variable models besides the standard normal."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional
from genrep.distributions.latent import Ancestral, Reparametrised
from genrep.nets.condition import encode_condition

NoiseName = Literal["normal", "uniform"]


class Hypersphere(Conditional):
    """The uniform law on the unit sphere in R^d; singular, so without a density."""

    measure = "improper"
    zero: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"Expected latent >= 2 for a hypersphere, got {latent}.")
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        return Ancestral(lambda n: F.normalize(torch.randn_like(self.zero.expand(n, -1)), dim=1), None)


class NoiseGenerator(Conditional):
    """z = net(eps, y), eps ~ N(0, I) or uniform in [0, 1): a prior that learns through its draws."""

    measure = "improper"
    zero: Tensor

    def __init__(self, net: nn.Module, noise: int, law: NoiseName = "normal", condition: int = 0) -> None:
        super().__init__()
        self.net, self.law, self.condition_width, self.reads_y = net, law, condition, condition > 0
        self.register_buffer("zero", torch.zeros(noise), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        def draw(n: int) -> Tensor:
            like = self.zero.expand(n, -1)
            eps = torch.randn_like(like) if self.law == "normal" else torch.rand_like(like)
            c = encode_condition(y, self.condition_width, eps) if self.reads_y else None
            return self.net(eps, c).float()

        return Reparametrised(draw, len(y) if self.reads_y and y is not None else None)
