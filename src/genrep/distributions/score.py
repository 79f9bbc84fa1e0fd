"""Score-based models of a state with several parts: noise enters some, and spreads to the data through the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Gaussian, Point
from genrep.distributions.latent import Ancestral
from genrep.distributions.linear_sde import EARLIEST, LinearSDE, grid
from genrep.distributions.ode import TraceName, solve, solve_with_divergence, stages
from genrep.nets.condition import encode_condition

StateSampler = Literal["euler_maruyama", "heun", "ode"]


class State(Point):
    """z_t (B, m C, ...) drawn from its kernel: mean x + K eps, K K' its covariance."""


class Moments(NamedTuple):
    """Of z_t at times t (N,), for data of variance d^2: all (N, m, m) but the first, (N, m)."""

    mean: Tensor  # of the data in z_t
    factor: Tensor  # K
    total: Tensor  # K K' + d^2 mean mean', the covariance of z_t
    left: Tensor  # std of what K' total^-1 z does not tell of eps, (N, m)


def mix(matrix: Tensor, parts: Tensor) -> Tensor:
    """(N or 1, k, m) times (B, m, C, ...) -> (B, k, C, ...); as a sum, because autocast would round a product."""
    matrix = matrix.to(parts.dtype).reshape(*matrix.shape, *[1] * (parts.ndim - 2))
    return (matrix * parts[:, None]).sum(2)


class StateProcess(Conditional):
    """q(z_t | x), drawn; z has m C channels, the parts one after the other."""

    def __init__(self, sde: LinearSDE, sigma_data: float) -> None:
        super().__init__()
        self.sde, self.sigma_data = sde, sigma_data

    def moments(self, t: Tensor) -> Moments:
        mean, covariance = self.sde.kernel(t.clamp_min(EARLIEST))
        factor = torch.linalg.cholesky(covariance)
        total = covariance + self.sigma_data**2 * mean[:, :, None] * mean[:, None]
        known = factor.mT @ torch.linalg.solve(total, factor)
        left = (1 - known.diagonal(dim1=1, dim2=2)).clamp_min(1e-6).sqrt()
        return Moments(mean, factor, total, left)

    def draw(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """z_t and its eps, (B, m, C, ...) each."""
        found = self.moments(t)
        noise = torch.randn(len(x), self.sde.size, *x.shape[1:], device=x.device, dtype=x.dtype)
        return mix(found.mean[:, :, None], x[:, None]) + mix(found.factor, noise), noise

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> State:
        return State(self.draw(x, t)[0].flatten(1, 2))


class NoiseEstimate(Conditional):
    """noise(z, t, y) -> eps (B, m, C, ...): K' total^-1 z, exact for Gaussian data, plus what the network says.

    The network reads every part in units of its standard deviation, and its output is in units of what is left to say;
    it speaks of the parts that enter the reverse equation: those through which noise comes. Others keep the first term.
    """

    can_sample = False

    def __init__(self, net: nn.Module, process: StateProcess, condition: int = 0) -> None:
        super().__init__()
        self.net, self.process = net, process
        self.condition_width, self.reads_y = condition, condition > 0
        self.told = told(process.sde)

    def forward(self, z: Tensor, t: Tensor, *, y: Tensor | None = None) -> Point:
        c = encode_condition(y, self.condition_width, z) if self.reads_y else None
        found, z = self.process.moments(t), z.unflatten(1, (self.process.sde.size, -1))
        size = found.total.diagonal(dim1=1, dim2=2).sqrt()
        said = self.net(mix(torch.diag_embed(1 / size), z).flatten(1, 2), t, c).to(z.dtype)
        said = said.unflatten(1, (len(self.told), -1))
        rest = torch.zeros_like(z)
        rest[:, self.told] = mix(torch.diag_embed(found.left[:, self.told]), said)
        return Point(mix(found.factor.mT @ torch.linalg.inv(found.total), z) + rest)


def told(sde: LinearSDE) -> list[int]:
    """The parts of eps that L L' K'^-1 eps depends on: the score where noise enters."""
    factor = torch.linalg.cholesky(sde.kernel(torch.tensor([0.5], dtype=torch.float64)).covariance)[0]
    reach = sde.diffusion.T @ torch.linalg.inv(factor.T)
    return [i for i in range(sde.size) if reach[:, i].abs().max() > 1e-9]


class StateFeatures(nn.Module):
    """(x or z_t, t) -> {layer: (B, d)}; to x itself the other parts are added as they are on average: zero."""

    def __init__(self, noise: NoiseEstimate) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        process = self.noise.process
        z = x.unflatten(1, (1, -1)) if bool((t == 0).all()) else x.unflatten(1, (process.sde.size, -1))
        z = torch.cat([z, z.new_zeros(len(z), process.sde.size - z.shape[1], *z.shape[2:])], 1)
        size = process.moments(t).total.diagonal(dim1=1, dim2=2).sqrt()
        width = self.noise.condition_width
        c = encode_condition(None, width, x) if width else None
        features = self.noise.net.features(mix(torch.diag_embed(1 / size), z).flatten(1, 2), t, c)  # pyright: ignore[reportCallIssue]
        return {name: layer.float() for name, layer in features.items()}


class StateDiffusion(Conditional):
    """z_1 ~ N(0, its covariance at t = 1), then the reverse equation; x is the first part of z_0. shape: of one x.

    dz = (beta A z - beta L L' score) dt + sqrt(beta) L dW backwards in time (Anderson, 1982), score = -K'^-1 eps; or,
    with the same marginals, dz = (beta A z - beta L L' score / 2) dt.
    """

    def __init__(self, noise: NoiseEstimate, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.noise, self.shape, self.reads_y = noise, shape, noise.reads_y
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def slope(self, z: Tensor, t: Tensor, y: Tensor | None, *, share: float) -> Tensor:
        """beta A z - share beta L L' score at z (B, m C, ...) and one time t ()."""
        process, at = self.noise.process, t.reshape(1)
        eps = self.noise(z, at.float().expand(len(z)), y=y).mean
        factor = process.moments(at).factor
        reach = process.sde.noise_at(at) @ torch.linalg.inv(factor.mT)
        parts = z.unflatten(1, (process.sde.size, -1))
        return (mix(process.sde.drift_at(at), parts) + share * mix(reach, eps)).flatten(1, 2)

    def forward(
        self, *, y: Tensor | None = None, sampler: StateSampler = "euler_maruyama", evaluations: int = 200
    ) -> Ancestral:
        """How samples are drawn.

        Args:
            sampler: euler_maruyama draws noise on the way; heun and ode (Runge-Kutta of fourth order) do not.
            evaluations: Of the network per sample.
        """
        zero = self.get_buffer("zero")
        count = self.evaluations(sampler=sampler, evaluations=evaluations) // _per_step(sampler)
        times = grid(count).flip(0).to(zero)
        process = self.noise.process

        def draw(n: int) -> Tensor:
            noise = torch.randn(n, process.sde.size, *self.shape, device=zero.device, dtype=zero.dtype)
            z = mix(torch.linalg.cholesky(process.moments(times[:1]).total), noise).flatten(1, 2)
            if sampler == "euler_maruyama":
                z = self._walk(z, times, y)
            else:
                z = solve(lambda z, t: self.slope(z, t, y, share=0.5), z, times, "heun" if sampler == "heun" else "rk4")
            return z.unflatten(1, (process.sde.size, -1))[:, 0]

        return Ancestral(draw, None if y is None else len(y))

    def _walk(self, z: Tensor, times: Tensor, y: Tensor | None) -> Tensor:
        sde = self.noise.process.sde
        for i, (a, b) in enumerate(zip(times[:-1], times[1:], strict=True)):
            before = z
            z = z + (b - a) * self.slope(z, a, y, share=1.0)
            if i + 2 < len(times):  # the last step adds no noise
                amount = ((a - b) * sde.beta(a.double())).sqrt() * sde.diffusion
                fresh = torch.randn_like(before).unflatten(1, (sde.size, -1))
                z = z + mix(amount[None], fresh).flatten(1, 2)
        return z

    def evaluations(self, *, sampler: StateSampler = "euler_maruyama", evaluations: int = 200) -> int:
        if sampler not in get_args(StateSampler):
            raise ValueError(
                f"Expected a sampler of {', '.join(get_args(StateSampler))}, got {sampler!r}: others need a state of "
                "one part (vp, ve, sub_vp)."
            )
        per_step = _per_step(sampler)
        if evaluations < per_step:
            raise ValueError(f"Expected at least {per_step} evaluations for {sampler}, got {evaluations}.")
        return evaluations // per_step * per_step

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """ode: log p(x) >= E[log p(x, v) - log q(v | x)], one draw of v from its kernel at t = 1e-3."""

        def ode(x: Tensor, y: Tensor | None, *, evaluations: int = 200, trace: TraceName = "hutchinson") -> Tensor:
            times = grid(max(1, evaluations // stages("rk4"))).to(x)
            process = self.noise.process
            start = process.sde.kernel(times[:1])
            factor = torch.linalg.cholesky(start.covariance[:, 1:, 1:])
            white = torch.randn(len(x), process.sde.size - 1, *x.shape[1:], device=x.device, dtype=x.dtype)
            v = mix(start.mean[:, 1:, None], x[:, None]) + mix(factor, white)
            z = torch.cat([x[:, None], v], 1).flatten(1, 2)
            end, change = solve_with_divergence(lambda z, t: self.slope(z, t, y, share=0.5), z, times, trace=trace)
            total = torch.linalg.cholesky(process.moments(times[-1:]).total)
            found = mix(torch.linalg.inv(total), end.unflatten(1, (process.sde.size, -1)))
            return density(found, total) + change - density(white, factor)

        return {"ode": Way(ode, "lower bound", "density")}


def density(white: Tensor, factor: Tensor) -> Tensor:
    """log N(z; 0, K K') of z = K white, (B,); white (B, m, C, ...), K (1, m, m)."""
    scale = factor.diagonal(dim1=1, dim2=2).log().sum().to(white) * white[0, 0].numel()
    return Gaussian(torch.zeros_like(white), torch.zeros_like(white)).log_prob(white) - scale


def _per_step(sampler: StateSampler) -> int:
    return {"heun": 2, "ode": 4}.get(sampler, 1)
