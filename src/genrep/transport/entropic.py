"""Entropic optimal transport between two clouds: duals of

    OT_eps(a, b) = min_P <P, C> + eps KL(P | a x b)  =  max_{f, g} <a, f> + <b, g>,
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),

with cost C (B, N, M), weights a (B, N), b (B, M), temperature eps.

f is eliminated, so each row of the plan P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps) sums to a_i. What is left is
concave in g: with c_j = sum_i P_ij the gradient is b - c and -eps times the Hessian is S = diag(c) - P^T diag(1 / a) P
(Cuturi and Peyré, 2016, section 5). Truncated Newton steps follow the maximum while eps falls to its final value.
Sinkhorn's iteration is the step S ~ diag(c); a conjugate-gradient iteration on S costs the same two matrix-vector
products and gains where Sinkhorn stalls, at small eps.

Kernel domain: a row-normalised kernel Q is built once per eps by one softmax; after that only scalings change,
P = diag(u) Q diag(v). Scalings outside `_RANGE` are absorbed in g (Schmitzer, 2019, section 3.2) and Q is built again;
a column that vanished in Q gets its dual from a logsumexp.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_RANGE = 30.0  # largest |log scaling| before absorption: exp(30) times the smallest normal float32 stays resolved
_EXPONENT = -80.0  # exp below it is zero for any sum here, and slow (denormal) in float32
_FACTOR = 0.6  # eps of a stage over eps of the one before
_HOTTEST = 0.1  # the first eps over the mean cost
_STAGE = 0.002  # marginal error at which a stage hands over to the next: Newton needs to stay close to the path
_PATIENCE = 300  # most products of a stage that is not the last
_INNER = 50  # most conjugate-gradient iterations of a Newton step
_BASIN = 0.5  # marginal error above which Sinkhorn's step is taken
_STEP = 4.0  # largest change of g_j / eps in one Newton step, per point: a loose block does not hold up the rest


class Plan(NamedTuple):
    """P = diag(u) Q diag(v) and its duals; marginal_error (B,) = sum_j |c_j - b_j|."""

    u: Tensor  # (B, N)
    kernel: Tensor  # (B, N, M)
    v: Tensor  # (B, M)
    f: Tensor  # (B, N)
    g: Tensor  # (B, M)
    value: Tensor  # (B,)
    iterations: int  # pairs of matrix-vector products
    marginal_error: Tensor  # (B,)

    def times(self, points: Tensor) -> Tensor:
        """sum_j P_ij y_j: (B, M, D) -> (B, N, D)."""
        return self.u[..., None] * (self.kernel @ (self.v[..., None] * points))

    def mirrored(self) -> Plan:
        """The same plan from y to x."""
        return self._replace(u=self.v, kernel=self.kernel.mT, v=self.u, f=self.g, g=self.f)

    @property
    def rows(self) -> Tensor:
        return self.u * _right(self.kernel, self.v)


def _right(kernel: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(kernel, v.unsqueeze(2)).squeeze(2)


def _left(u: Tensor, kernel: Tensor) -> Tensor:
    return torch.bmm(u.unsqueeze(1), kernel).squeeze(1)


def _logsumexp(scores: Tensor, dim: int) -> Tensor:
    """As torch.logsumexp, in place and without the slow exponentials of numbers that underflow."""
    top = scores.amax(dim, keepdim=True)
    return scores.sub_(top).clamp_min_(_EXPONENT).exp_().sum(dim).log_() + top.squeeze(dim)


class _Semidual:
    """The plan at one eps: kernel Q and scalings u, v around the dual g it was built from."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor) -> None:
        self.cost, self.a, self.b, self.log_b = cost, a, b, b.log()
        self.kernel = torch.empty_like(cost)
        self.products = 0

    def build(self, g: Tensor, eps: float) -> None:
        self._softmax(g, eps)
        if bool((self.c < 1e-12 * self.b).any()):  # such a column can hardly come back through scalings
            f = -eps * self.log_normaliser()
            scores = (f / eps + self.a.log()).unsqueeze(2) - self.cost / eps
            self._softmax(-eps * _logsumexp(scores, 1), eps)

    def _softmax(self, g: Tensor, eps: float) -> None:
        self.g, self.eps = g - g.mean(1, keepdim=True), eps
        torch.add((self.g / eps + self.log_b).unsqueeze(1), self.cost, alpha=-1 / eps, out=self.kernel)
        self.top, self.where = self.kernel.max(2)
        torch.softmax(self.kernel, 2, out=self.kernel)
        self.scale(torch.ones_like(g))

    def scale(self, v: Tensor) -> None:
        """Set v, and from it u, the columns c and the error."""
        self.v, self.u = v, self.a / _right(self.kernel, v)
        self.c = v * _left(self.u, self.kernel)
        self.error = (self.c - self.b).abs().sum(1)
        self.products += 1

    def log_normaliser(self) -> Tensor:
        """The log of sum_j b_j exp((g_j - C_ij) / eps) at the g of the kernel: score - log softmax at the largest."""
        return self.top - self.kernel.gather(2, self.where.unsqueeze(2)).squeeze(2).log()

    def dual(self) -> Tensor:
        return self.g + self.eps * self.v.log()

    def sinkhorn(self) -> None:
        self.scale(self.v * (self.b / self.c))

    def absorb(self) -> None:
        if float(self.v.log().abs().max()) > _RANGE:
            self.build(self.dual(), self.eps)

    def newton(self, tolerance: float, limit: int) -> None:
        """One damped Newton step of the pairs still above tolerance; Sinkhorn steps for those it does not improve."""
        v, error = self.v, self.error
        active = (error > tolerance).unsqueeze(1)
        step = (self._direction(active, limit) * active).clamp(-_STEP, _STEP)
        length = active.to(v)
        for _ in range(4):
            self.scale(v * (length * step).exp())
            worse = self.error.unsqueeze(1) > error.unsqueeze(1) * (1 - 0.1 * length)
            if not bool((worse & active).any()):
                return
            length = torch.where(worse, length / 2, length)
        failed = (self.error >= error).unsqueeze(1) & active
        self.scale(torch.where(failed, v, self.v))
        for _ in range(5):
            self.scale(torch.where(failed, self.v * (self.b / self.c), self.v))

    def _direction(self, active: Tensor, limit: int) -> Tensor:
        """S^-1 (b - c) by conjugate gradients, preconditioned by its diagonal, to a residual of min(0.1, error)."""
        kernel, u, v, c = self.kernel, self.u, self.v, self.c
        inverse_a = 1 / self.a
        diagonal = c - v.square() * _left(u.square() * inverse_a, kernel.square())
        inverse = 1 / torch.maximum(diagonal, 1e-6 * self.b)
        solution, residual = torch.zeros_like(c), (self.b - c) * active
        z = inverse * residual
        direction, rz = z, (residual * z).sum(1, keepdim=True)
        target = rz * self.error.clamp_max(0.1).square().unsqueeze(1)
        for _ in range(limit):
            forward = u * _right(kernel, v * direction)
            image = c * direction - v * _left(forward * u * inverse_a, kernel)
            self.products += 1
            curvature = (direction * image).sum(1, keepdim=True)
            alpha = torch.where(curvature > 0, rz / curvature, 0)  # zero for pairs that are done
            solution = solution + alpha * direction
            residual = residual - alpha * image
            z = inverse * residual
            previous, rz = rz, (residual * z).sum(1, keepdim=True)
            if bool(((rz <= target) | (alpha <= 0)).all()):
                break
            direction = z + torch.where(previous > 0, rz / previous, 0) * direction
        return solution


def transport(
    cost: Tensor, a: Tensor, b: Tensor, eps: float, tolerance: float, limit: int, start: Tensor | None = None
) -> Plan:
    """The plan and duals at eps, to a marginal error of `tolerance` or after about `limit` products.

    eps falls by `_FACTOR` from a fraction of the mean cost, or from as near as the duals `start` (B, M) allow; each
    stage starts from the line through the last two.
    """
    state = _Semidual(cost, a, b)
    scale = float(cost.mean())
    warmest = max(_HOTTEST * scale, eps)
    if scale < eps:  # the dual's error is about eps * error^2: keep it small against the cost
        tolerance = tolerance * max(scale / eps, 1e-3)
    temperature = warmest if start is None else eps
    state.build(torch.bmm(a.unsqueeze(1), cost).squeeze(1) if start is None else start, temperature)
    while start is not None and temperature < warmest and float(state.error.max()) > _BASIN:
        temperature = min(temperature * 4, warmest)
        state.build(start, temperature)
    path: list[tuple[float, Tensor]] = []
    while True:
        last = temperature <= eps
        _converge(state, tolerance if last else _STAGE, limit if last else min(limit, state.products + _PATIENCE))
        if last:
            return _plan(state)
        path = [*path[-1:], (temperature, state.dual())]
        temperature = max(temperature * _FACTOR, eps)
        state.build(_extrapolate(path, temperature), temperature)


def _extrapolate(path: list[tuple[float, Tensor]], temperature: float) -> Tensor:
    (e0, g0), (e1, g1) = path[0], path[-1]
    return g1 if e0 == e1 else g1 + (g1 - g0) * ((e1 - temperature) / (e0 - e1))


def _converge(state: _Semidual, tolerance: float, limit: int) -> None:
    while (worst := float(state.error.max())) > tolerance and state.products < limit:
        if worst > _BASIN:
            state.sinkhorn()
        else:
            state.newton(tolerance, _INNER)
        state.absorb()


def _plan(state: _Semidual) -> Plan:
    f = state.eps * ((state.u / state.a).log() - state.log_normaliser())
    g = state.dual()
    value = (state.a * f).sum(1) + (state.b * g).sum(1)  # rows are exact, so the plan's mass is one
    return Plan(state.u, state.kernel, state.v, f, g, value, state.products, state.error)


def self_transport(cost: Tensor, a: Tensor, eps: float, tolerance: float, start: Tensor | None = None) -> Plan:
    """The plan of a cloud to itself, P = diag(u) K diag(u) with K = exp(-C / eps), by u <- sqrt(u a / (K u)).

    Its log error contracts by (1 - s) / 2 with s >= 0 an eigenvalue of the plan (positive semi-definite for these
    costs), at every eps, so that nothing is annealed (Feydy et al., 2019, section 3.1); K has a unit diagonal, so no
    row vanishes. Overwrites cost.
    """
    kernel = cost.div_(-eps).clamp_min_(_EXPONENT).exp_()
    u = a.sqrt() if start is None else a * (start / eps).exp()
    rows, iterations = _right(kernel, u), 1
    while float((u * rows - a).abs().sum(1).max()) > tolerance and iterations < 50:
        u = (u * a / rows).sqrt()
        rows, iterations = _right(kernel, u), iterations + 1
    error = (u * rows - a).abs().sum(1)
    f = eps * (u / a).log()
    value = 2 * (a * f).sum(1) + eps * (1 - (u * rows).sum(1))
    return Plan(u, kernel, u, f, f, value, iterations, error)
