"""The noise levels and the preconditioning of Karras et al. (2022), on a chain that keeps the variance.

Their x_0 + sigma eps is x_t / a here, with sigma = s / a; nothing else differs, so every sampler and bound applies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import Denoised
from genrep.nets.condition import encode_condition


def power(steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Tensor:
    """log abar = -log(1 + sigma^2), sigma^(1 / rho) even from `low` to `high` (Karras et al., 2022, eq. 5)."""
    if steps < 2 or not 0 < low < high:
        raise ValueError(f"Expected at least 2 steps and 0 < low < high, got {steps}, {low} and {high}.")
    sigma = torch.linspace(low ** (1 / rho), high ** (1 / rho), steps, dtype=torch.float64) ** rho
    return torch.cat([sigma.new_zeros(1), -torch.log1p(sigma.square())])


class Preconditioned(Conditional):
    """denoiser(x_t, t, y) -> Denoised: x_0 = skip x + out net(x in, t, c), x = x_t / a (Karras et al., 2022, eq. 7).

    With d = sigma_data and sigma = s / a: skip = d^2 / (sigma^2 + d^2), out = sigma d / sqrt(sigma^2 + d^2), in =
    1 / sqrt(sigma^2 + d^2), so that what the network reads and what it should say have unit variance.
    """

    can_sample = False

    def __init__(
        self,
        net: nn.Module,
        process: VariancePreserving,
        sigma_data: float,
        condition: int = 0,
    ) -> None:
        super().__init__()
        if sigma_data <= 0:
            raise ValueError(f"Expected sigma_data > 0, got {sigma_data}.")
        self.net, self.process, self.sigma_data = net, process, sigma_data
        self.condition_width, self.reads_y = condition, condition > 0

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        alpha, s = self.process.scales(t, x)
        d, total = self.sigma_data, (s.square() + (alpha * self.sigma_data).square()).sqrt()  # of x_t for such data
        out = self.net(x / total, t, c).to(x.dtype)
        return Denoised(alpha * d**2 / total.square() * x + s * d / total * out, 1.0)
