"""Fixed processes that turn data into noise: process(x, t) -> distribution of x_t, t in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.contracts import Conditional
from genrep.distributions.basic import Gaussian
from genrep.distributions.schedules import Chain


class VariancePreserving(Conditional):
    """q(x_t | x) = N(a(t) x, s(t)^2 I), a^2 + s^2 = 1 (Ho et al., 2020, eq. 4; Song et al., 2021, eq. 11).

    At t = k / T the values are the chain's; between its points log a^2 is linear in t.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a(t) and s(t) for t (B,), shaped to multiply `like`."""
        table, u = self.chain.log_alpha_bar, t.to(self.chain.log_alpha_bar) * self.chain.steps
        near = u.round()
        u = torch.where((u - near).abs() < 1e-3, near, u)  # k / T * T in float32 is not always k
        low = u.floor().clamp(0, self.chain.steps - 1).long()
        log = torch.lerp(table[low], table[low + 1], u - low).reshape(-1, *[1] * (like.ndim - 1))
        return (log / 2).exp(), (-torch.expm1(log)).sqrt()

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Gaussian:
        alpha, sigma = self.scales(t, x)
        return Gaussian(alpha * x, sigma.log())
