"""Linear stochastic differential equations that turn data into noise, with their exact kernels.

    dz = beta(t) A z dt + sqrt(beta(t)) L dW,    z = (x, v_1, ..., v_(m-1)),    t in [0, 1]

The state z has m parts, each shaped like x; A and L (m, m) act on the parts. At t = 0 the first part is the data, the
others are independent noise of given variances. With B(t) the integral of beta, z_t given x is Gaussian:

    mean Phi (x, 0, ...),  covariance Phi S_0 Phi' + integral of exp(A u) L L' exp(A' u) du over [0, B(t)]

with Phi = exp(A B(t)). The integral comes out of one matrix exponential of twice the size (Van Loan, 1978).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

SDEName = Literal["vp", "ve", "sub_vp", "langevin", "third_order"]
EARLIEST = 1e-3  # where chains and solvers begin; the kernel is singular at t = 0


class Kernel(NamedTuple):
    """z_t given x: mean (N, m) times x, covariance (N, m, m); float64."""

    mean: Tensor
    covariance: Tensor


class LinearSDE(nn.Module):
    """The equation above; `beta` and its integral are functions of t (N,), float64.

    drift A and diffusion L: (m, m). start: variances of the parts at t = 0, (m,), the first 0.
    """

    drift: Tensor
    diffusion: Tensor
    start: Tensor

    def __init__(
        self,
        drift: Tensor,
        diffusion: Tensor,
        beta: Callable[[Tensor], Tensor],
        integral: Callable[[Tensor], Tensor],
        start: Sequence[float] = (),
    ) -> None:
        super().__init__()
        m = len(drift)
        if drift.shape != (m, m) or diffusion.shape != (m, m):
            raise ValueError(
                f"Expected square matrices of one size for drift and diffusion, got {tuple(drift.shape)} and "
                f"{tuple(diffusion.shape)}."
            )
        self.size, self.beta, self.integral = m, beta, integral
        for name, value in (("drift", drift), ("diffusion", diffusion), ("start", torch.tensor([0.0, *start]))):
            self.register_buffer(name, value.to(torch.float64), persistent=False)
        if len(self.start) != m or bool((self.start < 0).any()):
            raise ValueError(f"Expected {m - 1} variances >= 0 of the other parts at the start, got {list(start)}.")
        found = self.kernel(torch.tensor([EARLIEST, 1.0], dtype=torch.float64))
        if not found.covariance.isfinite().all() or torch.linalg.cholesky_ex(found.covariance)[1].any():
            raise ValueError(
                "Noise does not reach every part of the state, or it explodes: choose a diffusion matrix (with the "
                "drift that carries it on) for which the covariance at t = 1 is finite and positive."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearSDE:
        """To another device, but always in float64: the kernel near t = 0 is a difference of near numbers."""
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        self._buffers.update({name: b.to(fn(b).device) for name, b in kept.items()})
        return self

    def kernel(self, t: Tensor) -> Kernel:
        """z_t given x at the times t (N,)."""
        m, u = self.size, self.integral(t.double())[:, None, None]
        upper = torch.cat([-self.drift, self.diffusion @ self.diffusion.T], 1)
        lower = torch.cat([torch.zeros_like(self.drift), self.drift.T], 1)
        found = torch.linalg.matrix_exp(u * torch.cat([upper, lower]))
        phi = found[:, m:, m:].mT
        covariance = phi @ found[:, :m, m:] + phi @ torch.diag(self.start) @ phi.mT
        return Kernel(phi[:, :, 0], (covariance + covariance.mT) / 2)

    def drift_at(self, t: Tensor) -> Tensor:
        """beta(t) A, (N, m, m)."""
        return self.beta(t.double())[:, None, None] * self.drift

    def noise_at(self, t: Tensor) -> Tensor:
        """beta(t) L L', (N, m, m)."""
        return self.beta(t.double())[:, None, None] * (self.diffusion @ self.diffusion.T)


class SubVariancePreserving(LinearSDE):
    """dx = -beta x / 2 dt + sqrt(beta (1 - exp(-2 B))) dW, of variance (1 - exp(-B))^2 (Song et al., 2021)."""

    def kernel(self, t: Tensor) -> Kernel:
        u = self.integral(t.double())[:, None]
        return Kernel((-u / 2).exp(), torch.expm1(-u).square()[..., None])

    def noise_at(self, t: Tensor) -> Tensor:
        return super().noise_at(t) * -torch.expm1(-2 * self.integral(t.double()))[:, None, None]


def clock(low: float, high: float) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """beta(t) linear from `low` to `high`, and its integral."""
    if not 0 < low <= high:
        raise ValueError(f"Expected 0 < beta_min <= beta_max, got {low} and {high}.")
    return lambda t: low + t * (high - low), lambda t: low * t + t.square() * (high - low) / 2


def named(
    name: SDEName, beta: tuple[float, float] = (0.1, 20.0), sigma: tuple[float, float] = (0.01, 50.0)
) -> LinearSDE:
    """The equation of that name.

    vp, sub_vp: beta linear (Song et al., 2021). ve: sigma(t) = low (high / low)^t. langevin: noise enters a velocity v
    alone, critically damped: A = [[0, 4], [-1, -4]], L = diag(0, sqrt 2), v_0 of variance 0.01 (Dockhorn et al., 2022,
    with M = 1/4 and Gamma = 1). third_order: noise enters an acceleration, which drives v, which drives x, critically
    damped; A is skew but for the friction, so that N(0, I) stays as it is.
    """
    if name not in get_args(SDEName):
        raise ValueError(f"Expected an equation of {list(get_args(SDEName))}, got {name!r}.")
    one = torch.ones(1, 1)
    if name == "ve":
        low, high = sigma
        if not 0 < low < high:
            raise ValueError(f"Expected 0 < sigma_min < sigma_max, got {low} and {high}.")
        rate = 2 * math.log(high / low)
        integral = lambda t: low**2 * torch.expm1(rate * t)  # noqa: E731
        return LinearSDE(0 * one, one, lambda t: rate * low**2 * (rate * t).exp(), integral)
    if name in ("vp", "sub_vp"):
        return (LinearSDE if name == "vp" else SubVariancePreserving)(-one / 2, one, *clock(*beta))
    if name == "langevin":
        friction = torch.diag(torch.tensor([0.0, 2**0.5]))
        return LinearSDE(torch.tensor([[0.0, 4.0], [-1.0, -4.0]]), friction, *clock(4.0, 4.0), start=(0.01,))
    a, b, friction = 2 / 3**0.5, 4 * (2 / 3) ** 0.5, 6.0  # all three eigenvalues are -2
    drift = torch.tensor([[0.0, a, 0.0], [-a, 0.0, b], [0.0, -b, -friction]], dtype=torch.float64)
    noise = torch.diag(torch.tensor([0.0, 0.0, (2 * friction) ** 0.5], dtype=torch.float64))
    return LinearSDE(drift, noise, *clock(4.0, 4.0), start=(0.04, 0.04))


def given(drift: Sequence[float], diffusion: Sequence[float], beta: tuple[float, float]) -> LinearSDE:
    """The equation of matrices written row by row; the other parts begin with a variance of 0.04."""
    m = math.isqrt(len(drift))
    if not m or m * m != len(drift) or len(diffusion) != len(drift):
        raise ValueError(
            f"Expected drift and diffusion as m * m numbers each, row by row, got {len(drift)} and {len(diffusion)}."
        )
    a, b = (torch.tensor(v, dtype=torch.float64).view(m, m) for v in (drift, diffusion))
    return LinearSDE(a, b, *clock(*beta), start=(0.04,) * (m - 1))


def grid(steps: int) -> Tensor:
    """Times from 1e-3 to 1, (steps + 1,) float64, even in their cubic roots: rates grow like 1 / t near 0."""
    return torch.linspace(EARLIEST ** (1 / 3), 1, steps + 1, dtype=torch.float64) ** 3


def schedule(sde: LinearSDE, steps: int) -> Tensor:
    """log abar of a chain of one part: x_t / sqrt(a^2 + s^2) keeps the variance, abar = a^2 / (a^2 + s^2)."""
    if sde.size != 1 or steps < 2:
        raise ValueError(f"Expected an equation of one part and at least 2 steps, got {sde.size} and {steps}.")
    t = torch.linspace(EARLIEST, 1, steps, dtype=torch.float64)
    mean, covariance = sde.kernel(t)
    signal = 2 * mean[:, 0].abs().log()
    return torch.cat([t.new_zeros(1), signal - (signal.exp() + covariance[:, 0, 0]).log()])
