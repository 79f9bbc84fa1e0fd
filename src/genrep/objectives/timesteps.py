"""How training chooses the steps of a chain; every choice is corrected, so that the expected loss is the same.

Steps k in 1..T with probabilities p_k come with weights 1 / (T p_k): E[weight f(k)] = (f(1) + ... + f(T)) / T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

StepsAndWeights = tuple[Tensor, Tensor]


class Uniform(nn.Module):
    """Each step alike; together they are spread evenly over the chain (Kingma et al., 2021, appendix I.1)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, n: int, device: torch.device) -> StepsAndWeights:
        """n steps (n,) int64 and their weights (n,)."""
        k = (spread(n, device) * self.steps).long().clamp_max(self.steps - 1) + 1
        return k, torch.ones(n, device=device)

    def learn(self, k: Tensor, loss: Tensor) -> None:
        """Told of the uncorrected losses (n,) at the steps drawn, in train mode."""


class Weighted(Uniform):
    """P(k) proportional to given positive weights, (T,)."""

    probabilities: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__(len(weights))
        if not (bool((weights > 0).all()) and bool(weights.isfinite().all())):
            raise ValueError("Expected positive finite weights: a step of weight 0 would never be trained.")
        self.register_buffer("probabilities", (weights / weights.sum()).to(torch.get_default_dtype()), persistent=False)

    def forward(self, n: int, device: torch.device) -> StepsAndWeights:
        k = draw(self.probabilities, n)
        return k + 1, 1 / (self.steps * self.probabilities[k])


class Between(Uniform):
    """Steps from `low` to `high`, each alike: E[f(k)] is their mean, for a stage that trains these alone."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(high - low + 1)
        self.low = low

    def forward(self, n: int, device: torch.device) -> StepsAndWeights:
        k, weight = super().forward(n, device)
        return k + self.low - 1, weight


class LossAware(Uniform):
    """P(bin) proportional to sqrt E[loss^2], over bins of equal length and mixed with a tenth of uniform.

    The choice of least variance (Nichol & Dhariwal, 2021, eq. 18). The mean square of a bin is a moving average, so
    that the state stays small; the mixture bounds the weights by 10.
    """

    square: Tensor

    def __init__(self, steps: int, bins: int = 50, decay: float = 0.98, uniform: float = 0.1) -> None:
        super().__init__(steps)
        self.bins, self.decay, self.uniform = min(bins, steps), decay, uniform
        self.register_buffer("square", torch.ones(self.bins))

    def forward(self, n: int, device: torch.device) -> StepsAndWeights:
        sizes = torch.bincount(self.bin_of(torch.arange(1, self.steps + 1, device=device)), minlength=self.bins)
        share = self.square.sqrt() * sizes
        p = ((1 - self.uniform) * share / share.sum() + self.uniform * sizes / self.steps) / sizes
        p = p[self.bin_of(torch.arange(1, self.steps + 1, device=device))]
        k = draw(p, n)
        return k + 1, 1 / (self.steps * p[k])

    def bin_of(self, k: Tensor) -> Tensor:
        return (k - 1) * self.bins // self.steps

    @torch.no_grad()
    def learn(self, k: Tensor, loss: Tensor) -> None:
        """By a product with one-hot rows: adding through repeated indices is not deterministic on every device."""
        member = nn.functional.one_hot(self.bin_of(k), self.bins).to(self.square)
        count = member.sum(0)
        mean = member.T @ loss.detach().to(self.square).square() / count.clamp_min(1)
        self.square.copy_(torch.where(count > 0, torch.lerp(mean, self.square, self.decay), self.square))


def spread(n: int, device: torch.device) -> Tensor:
    """n points, each uniform in [0, 1), together evenly spread: u + i / n mod 1."""
    return (torch.rand((), device=device) + torch.arange(n, device=device) / n) % 1


def draw(probabilities: Tensor, n: int) -> Tensor:
    """n indices, each with these probabilities, together evenly spread."""
    ends = probabilities.cumsum(0)
    index = torch.searchsorted(ends, spread(n, probabilities.device).to(ends) * ends[-1], right=True)
    return index.clamp_max(len(ends) - 1)
