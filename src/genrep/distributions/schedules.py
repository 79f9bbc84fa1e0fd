"""Noise schedules of chains x_0 -> x_1 -> ... -> x_T that keep the variance: q(x_k | x_0) = N(a_k x_0, s_k^2 I).

a_k^2 = abar_k falls from abar_0 = 1, and s_k^2 = 1 - abar_k. A schedule is the float64 tensor log abar, (T + 1,): the
only number from which neither end of the chain loses digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from genrep.distributions.basic import Gaussian

ScheduleName = Literal["auto", "linear", "cosine"]
Spacing = Literal["time", "log_snr"]


def linear(steps: int, first: float = 0.001, last: float = 0.02) -> Tensor:
    """beta_k evenly from `first` to `last`, both at 1,000 steps; with T steps each is 1,000 / T times as large.

    beta_k = 1 - abar_k / abar_(k-1). Ho et al. (2020), section 4, begin at 0.0001; the analysis of diffusion models as
    denoising autoencoders (Deja et al., 2022) at 0.001, which is the default here.
    """
    if not 0 < first <= last:
        raise ValueError(f"Expected 0 < first <= last, got {first} and {last}.")
    scale = 1000 / _checked(steps)
    return _from_betas(torch.linspace(first * scale, last * scale, steps, dtype=torch.float64))


def cosine(steps: int, offset: float = 0.008) -> Tensor:
    """abar(t) proportional to cos^2(pi / 2 (t + offset) / (1 + offset)) (Nichol & Dhariwal, 2021, eq. 17)."""
    return from_function(lambda t: ((t + offset) / (1 + offset) * math.pi / 2).cos().square(), steps)


def cosine_from(steps: int, first: float) -> Tensor:
    """abar_k = cos^2(pi / 2 t_k) with t_1, ..., t_T even from where the noise s_1 is `first` to 1.

    With s_1 far below the distance of two levels steps are spent on what rounding settles; far above, the last step
    has to guess. Nichol & Dhariwal (2021), section 3.2, choose the offset of their schedule for that, at 256 levels.
    """
    if not 0 < first < 1:
        raise ValueError(f"Expected 0 < first < 1, got {first}.")
    t = torch.linspace(2 / math.pi * math.asin(first), 1, _checked(steps), dtype=torch.float64)
    alpha_bar = torch.cat([t.new_ones(1), (t * math.pi / 2).cos().square()])
    return _from_betas(1 - alpha_bar[1:] / alpha_bar[:-1])


def from_function(alpha_bar: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Any schedule: `alpha_bar` maps t in [0, 1], float64, to falling positive values; it is divided by its first."""
    values = alpha_bar(torch.linspace(0, 1, _checked(steps) + 1, dtype=torch.float64))
    ratios = values[1:] / values[:-1]
    if not (values[0] > 0 and bool((ratios[:-1] > 0).all()) and bool((ratios < 1).all())):
        raise ValueError("Expected alpha_bar to fall from t = 0 to t = 1 and to stay positive before the end.")
    return _from_betas(1 - ratios)


def from_betas(betas: Sequence[float] | Tensor) -> Tensor:
    """Any schedule: beta_1, ..., beta_T, each in (0, 1); abar_k is the product of 1 - beta up to k.

    >>> from_betas([0.1, 0.5]).exp().tolist()
    [1.0, 0.9, 0.45]
    """
    found = torch.as_tensor(betas, dtype=torch.float64)
    if found.ndim != 1 or not len(found) or not bool(((found > 0) & (found < 1)).all()):
        raise ValueError(f"Expected noise_betas as numbers between 0 and 1, one for each step, got {betas!r:.60}.")
    return torch.cat([found.new_zeros(1), torch.log1p(-found).cumsum(0)])


def named(name: ScheduleName, steps: int, levels: int | None = None) -> Tensor:
    """The schedule of that name with its usual constants.

    auto: for levels 2 / (K - 1) apart a cosine from a quarter of that, s_1 = 1 / (2 (K - 1)); for real values cosine.
    """
    if name not in get_args(ScheduleName):
        raise ValueError(f"Expected a schedule of {list(get_args(ScheduleName))}, got {name!r}.")
    if name == "auto" and levels is not None:
        return cosine_from(steps, 0.5 / (levels - 1))
    return linear(steps) if name == "linear" else cosine(steps)


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"Expected at least 1 step, got {steps}.")
    return steps


def _from_betas(betas: Tensor) -> Tensor:
    """log abar; no beta exceeds 0.999, so that the last x_T keeps a trace of x_0 (Nichol & Dhariwal, section 3.2)."""
    return torch.cat([betas.new_zeros(1), torch.log1p(-betas.clamp_max(0.999)).cumsum(0)])


class Chain(nn.Module):
    """The tables of a chain with points k = 0, ..., n; a batch of steps k (B,) or one step gathers from them.

    Exact reversal: q(x_(k-1) | x_k, x_0) = N(c0 x_0 + ck x_k, btilde_k I) (Ho et al., 2020, eq. 6 and 7), c0 =
    a_(k-1) beta_k / s_k^2, ck = sqrt(1 - beta_k) s_(k-1)^2 / s_k^2, btilde_k = beta_k s_(k-1)^2 / s_k^2.

    >>> Chain(cosine(1000)).respaced(4).t.tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    t: Tensor  # (n + 1,) in [0, 1]: what the network reads
    alpha: Tensor
    sigma: Tensor
    log_alpha_bar: Tensor
    log_beta: Tensor  # from k = 1 on, like the tables below
    log_small: Tensor  # log btilde
    from_start: Tensor  # c0
    from_next: Tensor  # ck

    def __init__(self, schedule: Tensor, t: Tensor | None = None) -> None:
        super().__init__()
        self.steps, self.schedule = len(schedule) - 1, schedule.double()
        self.times = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64) if t is None else t
        log, variance = self.schedule, -torch.expm1(self.schedule)
        log_ratio = log.diff()
        beta = -torch.expm1(log_ratio)
        small = beta * variance[:-1] / variance[1:]
        small[0] = small[1] if self.steps > 1 else beta[0]  # zero at the first step, where no variance would be left
        tables = {
            "t": self.times,
            "log_alpha_bar": log,
            "alpha": (log / 2).exp(),
            "sigma": variance.sqrt(),
            "log_beta": _from_one(beta.log()),
            "log_small": _from_one(small.log()),
            "from_start": _from_one((log[:-1] / 2).exp() * beta / variance[1:]),
            "from_next": _from_one((log_ratio / 2).exp() * variance[:-1] / variance[1:]),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    def respaced(self, steps: int, spacing: Spacing = "time") -> Chain:
        """A chain of `steps` between the ends of this one, of the same process.

        time: through points of this one, evenly taken. log_snr: at equal distances in log(a / s).
        """
        if spacing not in get_args(Spacing):
            raise ValueError(f"Expected a spacing of {list(get_args(Spacing))}, got {spacing!r}.")
        if not 1 <= steps <= self.steps:
            raise ValueError(f"Expected 1 to {self.steps} steps of a chain of {self.steps}, got {steps}.")
        if spacing == "log_snr":
            ratio = (torch.log(-torch.expm1(self.schedule[1:])) - self.schedule[1:]) / 2  # log(s / a)
            grid = torch.linspace(float(ratio[-1]), float(ratio[0]), steps, dtype=torch.float64).flip(0)
            schedule = torch.cat([self.schedule[:1], -nn.functional.softplus(2 * grid)])
            return Chain(schedule, self.time_of(schedule)).to(self.t)
        if steps == self.steps:
            return self
        index = torch.linspace(0, self.steps, steps + 1, dtype=torch.float64).round().long()
        return Chain(self.schedule[index], self.times[index]).to(self.t)

    def time_of(self, log_alpha_bar: Tensor) -> Tensor:
        """The times of these values, float64: the inverse of the process, whose log abar is linear between points."""
        table, times = self.schedule.to(log_alpha_bar.device), self.times.to(log_alpha_bar.device)
        log = log_alpha_bar.double().clamp(table[-1], table[0])
        k = torch.searchsorted(-table, -log).clamp(1, self.steps)
        return torch.lerp(times[k], times[k - 1], (log - table[k]) / (table[k - 1] - table[k]))

    def at(self, name: str, k: Tensor | int, like: Tensor) -> Tensor:
        """Entry k of a table, shaped to multiply `like`."""
        value = self.get_buffer(name)[k]
        return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value

    def reverse(self, x: Tensor, start: Tensor, k: Tensor | int, interpolation: Tensor | float = 0.0) -> Gaussian:
        """x_(k-1) given x_k = x and (an estimate of) x_0 = start.

        log variance = i log beta_k + (1 - i) log btilde_k (Nichol & Dhariwal, 2021, eq. 15), where btilde_1 = 0 is
        replaced by btilde_2; i = 0 is the exact reversal for k >= 2.
        """
        mean = self.at("from_start", k, x) * start + self.at("from_next", k, x) * x
        large, small = self.at("log_beta", k, x), self.at("log_small", k, x)
        return Gaussian(mean, 0.5 * (small + interpolation * (large - small)))


def _from_one(table: Tensor) -> Tensor:
    """Tables of steps begin at k = 1; entry 0 is never read."""
    return torch.cat([table.new_full((1,), torch.nan), table])
