"""Continuous flows given by a velocity field that is trained without simulating it (flow matching)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Gaussian, Point
from genrep.distributions.latent import Ancestral
from genrep.distributions.ode import MethodName, TraceName, solve, solve_with_divergence, stages
from genrep.nets.condition import encode_condition


class Straight(Conditional):
    """The process x_t = (1 - t) x + t eps: data at t = 0, noise at t = 1 (Lipman et al., 2023, eq. 22, reversed)."""

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Gaussian:
        t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return Gaussian((1 - t) * x, t.log())


class Velocity(Conditional):
    """velocity(x_t, t, y) -> dx/dt, a point: the network's output; for the straight process E[eps - x | x_t]."""

    can_sample = False

    def __init__(self, net: nn.Module, condition: int = 0) -> None:
        super().__init__()
        self.net, self.condition_width, self.reads_y = net, condition, condition > 0

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Point:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        return Point(self.net(x, t, c).to(x.dtype))


class VelocityFlow(Conditional):
    """x_1 ~ N(0, I), dx/dt = velocity(x, t) from t = 1 to 0; x = x_0. shape: of one example."""

    def __init__(self, velocity: Conditional, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.velocity, self.shape, self.reads_y = velocity, shape, velocity.reads_y
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def field(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self.velocity(x, t.float().expand(len(x)), y=y).mean

    def forward(self, *, y: Tensor | None = None, method: MethodName = "heun", evaluations: int = 50) -> Ancestral:
        """`method`: of solving the equation. `evaluations`: of the network per sample."""
        zero = self.get_buffer("zero")
        steps = self.evaluations(method=method, evaluations=evaluations) // stages(method)
        grid = torch.linspace(1, 0, steps + 1, device=zero.device, dtype=zero.dtype)

        def draw(n: int) -> Tensor:
            x = torch.randn(n, *self.shape, device=zero.device, dtype=zero.dtype)
            return solve(lambda x, t: self.field(x, t, y), x, grid, method)

        return Ancestral(draw, None if y is None else len(y))

    def evaluations(self, *, method: MethodName = "heun", evaluations: int = 50) -> int:
        if evaluations < stages(method):
            raise ValueError(f"Expected at least {stages(method)} evaluations for {method}, got {evaluations}.")
        return evaluations // stages(method) * stages(method)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """ode: log p(x) = log N(x_1; 0, I) + integral from 0 to 1 of div velocity dt, an unbiased estimate or exact."""

        def ode(
            x: Tensor,
            y: Tensor | None,
            *,
            method: MethodName = "rk4",
            evaluations: int = 100,
            trace: TraceName = "hutchinson",
        ) -> Tensor:
            steps = self.evaluations(method=method, evaluations=evaluations) // stages(method)
            grid = torch.linspace(0, 1, steps + 1, device=x.device, dtype=x.dtype)
            end, change = solve_with_divergence(lambda x, t: self.field(x, t, y), x, grid, method=method, trace=trace)
            return Gaussian(torch.zeros_like(end), torch.zeros_like(end)).log_prob(end) + change

        return {"ode": Way(ode, "estimate", "density")}
