"""The debiased Sinkhorn divergence (Genevay et al., 2018; Feydy et al., 2019), to a stated marginal error.

    S_eps(a, b) = OT_eps(a, b) - OT_eps(a, a) / 2 - OT_eps(b, b) / 2,    C(x, y) = |x - y|^p / p,    eps = blur^p.

From exact transport (blur -> 0) to a kernel distance (blur -> infinity; for p = 2 half the squared distance of means).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.transport.clouds import Clouds, clouds, squared_distances
from genrep.transport.entropic import Plan, self_transport, transport

_FLOOR = 1e-12  # weight of a point without weight, over the uniform one: its dual stays defined, its mass rounds away


class Duals(NamedTuple):
    """Potentials at the solution, to start the next one near: OT_eps(a, b), OT_eps(a, a) and OT_eps(b, b)."""

    f: Tensor  # (N,) or (B, N)
    g: Tensor  # (M,) or (B, M)
    f_self: Tensor  # (N,) or (B, N)
    g_self: Tensor  # (M,) or (B, M)


class SelfTerm(NamedTuple):
    """OT_eps(b, b) of a fixed target: computed once, used in every step."""

    value: Tensor  # () or (B,)
    potential: Tensor  # (M,) or (B, M)


class Solution(NamedTuple):
    value: Tensor  # () or (B,); differentiable
    duals: Duals
    iterations: int  # pairs of matrix-vector products, all eps, the largest of the three problems
    marginal_error: Tensor  # () or (B,): largest L1 distance of a plan's marginals to the weights


def sinkhorn_divergence(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: int = 2, blur: float = 0.05
) -> Tensor:
    """S_eps between clouds x (N, D) and y (M, D), as a tensor (); of batches, (B,). See `sinkhorn`.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> sinkhorn_divergence(x, x + torch.tensor([3.0, 4.0]))  # a translation by t costs |t|^2 / 2
    tensor(12.5000)
    """
    return sinkhorn(x, y, a, b, p=p, blur=blur).value


def sinkhorn(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: int = 2,
    blur: float = 0.05,
    tolerance: float = 1e-3,
    limit: int = 10_000,
    start: Duals | None = None,
    target: SelfTerm | None = None,
) -> Solution:
    """S_eps with its duals, the work done and the marginal error reached.

    x (N, D) and y (M, D) or batches of them; weights a (N,), b (M,), default uniform, are normalised to one. Computed
    in float32 (float64 for float64 input). `tolerance`: largest marginal error, in mass; the value's error is of its
    square, the gradient's of its first power. `limit`: about the most iterations; a solution that ends above tolerance
    warns. `start`: duals of a nearby problem. `target`: `self_term(y, b)`, when y does not learn.

    The gradient to x, y, a and b is that of the dual at the solution (envelope theorem): nothing is unrolled, and
    second derivatives raise RuntimeError. In float32, costs beyond about 1e5 eps drown in rounding: use float64.

    Raises ValueError for p other than 1 and 2, blur, tolerance or limit not positive, and for clouds that do not fit.
    """
    _check(p, blur, tolerance, limit)
    pair = clouds(x, y, a, b)
    _fits(pair, start, target)
    wants = torch.is_grad_enabled()
    if target is not None and wants and (pair.y.requires_grad or pair.b.requires_grad):
        raise ValueError(
            "Expected a fixed y beside target=, but y or its weights require a gradient. Leave target out."
        )
    problem = _Problem(p, blur**p, tolerance, limit, _batched(start, pair), _batched(target, pair))
    value, f, g, f_self, g_self, error, count = _Divergence.apply(*pair[:4], problem)
    if bool((error > tolerance).any()):
        warnings.warn(
            f"Sinkhorn stopped at a marginal error of {float(error.max()):.1e}, above tolerance {tolerance:.1e}, "
            f"after {int(count)} iterations. Raise blur={blur:g}, tolerance or limit, or use float64.",
            RuntimeWarning,
            stacklevel=2,
        )
    duals = Duals(*(pair.result(d) for d in (f, g, f_self, g_self)))
    return Solution(pair.result(value), duals, int(count), pair.result(error))


def self_term(y: Tensor, b: Tensor | None = None, *, p: int = 2, blur: float = 0.05) -> SelfTerm:
    """OT_eps(b, b) of a target cloud, (M, D) or (B, M, D), for `sinkhorn(..., target=)` with the same p and blur."""
    _check(p, blur, 1.0, 1)
    pair = clouds(y.detach(), y.detach(), b, b)
    with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
        plan = _self_plan(pair.y, _floored(pair.b), _Problem(p, blur**p, 0.0, 1, None, None), None)
    return SelfTerm(pair.result(plan.value), pair.result(plan.g))


class _Problem(NamedTuple):
    p: int
    eps: float
    tolerance: float
    limit: int
    start: Duals | None
    target: SelfTerm | None


def _check(p: int, blur: float, tolerance: float, limit: int) -> None:
    if p not in (1, 2):
        raise ValueError(f"Expected p = 1 (cost |x - y|) or p = 2 (cost |x - y|^2 / 2), got {p!r}.")
    if not 0 < blur < float("inf"):
        raise ValueError(f"Expected blur > 0, a distance in the units of the points, got {blur}.")
    if not tolerance > 0 or limit < 1:
        raise ValueError(f"Expected tolerance > 0 and limit >= 1, got {tolerance} and {limit}.")


def _fits(pair: Clouds, start: Duals | None, target: SelfTerm | None) -> None:
    n, m = pair.result(pair.a).shape, pair.result(pair.b).shape
    if start is not None and [d.shape for d in start] != [n, m, n, m]:
        expected, got = [tuple(s) for s in (n, m, n, m)], [tuple(d.shape) for d in start]
        raise ValueError(f"Expected start= of shapes {expected}, got {got}.")
    if target is not None and target.potential.shape != m:
        raise ValueError(f"Expected target= of {tuple(m)} points, got {tuple(target.potential.shape)}.")


def _batched(kept: Any, pair: Clouds) -> Any:
    """Duals or a self-term as the solver holds them: with a batch, of the clouds' type, without history."""
    if kept is None:
        return None
    return type(kept)(*((t if pair.batched else t.unsqueeze(0)).detach().to(pair.x) for t in kept))


def _floored(w: Tensor) -> Tensor:
    return w.clamp_min(_FLOOR / w.shape[1])


def _cost(x: Tensor, y: Tensor, p: int) -> Tensor:
    if p == 2:
        return squared_distances(x, y).mul_(0.5)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # a root amplifies the product's rounding


def _self_plan(x: Tensor, a: Tensor, problem: _Problem, start: Tensor | None) -> Plan:
    cost = _cost(x, x, problem.p)
    cost.diagonal(dim1=1, dim2=2).zero_()
    tight = 1e-5 if x.dtype == torch.float32 else 1e-12  # a step costs one product
    return self_transport(cost, a, problem.eps, tight, start)


def _slope(plan: Plan, x: Tensor, y: Tensor, p: int) -> Tensor:
    """Gradient of <P, C> to x at fixed P: the sum over j of P_ij (x_i - y_j) |x_i - y_j|^(p - 2)."""
    if p == 2:
        return plan.rows.unsqueeze(2) * x - plan.times(y)
    distance = _cost(x, y, p)
    pull = plan.u.unsqueeze(2) * plan.kernel * plan.v.unsqueeze(1) / distance.masked_fill_(distance == 0, torch.inf)
    return pull.sum(2, keepdim=True) * x - pull @ y


class _Divergence(torch.autograd.Function):
    """Value by the solver, gradient by the envelope theorem; computed together, so that no plan is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, problem: _Problem) -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, enabled=False):
            return _Divergence.solve(ctx, x, y, a, b, problem)

    @staticmethod
    def solve(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, problem: _Problem) -> tuple[Tensor, ...]:
        p, eps, tolerance, limit, start, target = problem
        inputs, a, b = (x, y, a, b), _floored(a), _floored(b)
        f0, g0 = (start.f_self, start.g_self) if start else (None, None)
        cross = transport(_cost(x, y, p), a, b, eps, tolerance, limit, start.g if start else None)
        own = _self_plan(x, a, problem, f0)
        other = _self_plan(y, b, problem, g0) if target is None else None
        theirs = target if other is None else SelfTerm(other.value, other.g)
        assert theirs is not None
        value = cross.value - (own.value + theirs.value) / 2
        g = cross.g + eps * (b / cross.mirrored().rows).log()  # the half-step also gives weightless points their dual
        learns, centre = ctx.needs_input_grad, x.mean(1, keepdim=True)
        x, y = x - centre, y - centre
        ctx.save_for_backward(
            _slope(cross, x, y, p) - _slope(own, x, x, p) if learns[0] else None,
            _slope(cross.mirrored(), y, x, p) - _slope(other, y, y, p) if learns[1] and other else None,
            cross.f - own.f,
            g - theirs.potential,
            *inputs,
        )
        duals = [cross.f, g, own.f, theirs.potential]
        plans = [plan for plan in (cross, own, other) if plan is not None]
        error = torch.stack([plan.marginal_error for plan in plans]).amax(0)
        count = torch.tensor(max(plan.iterations for plan in plans))
        ctx.mark_non_differentiable(*duals, error, count)
        return value, *duals, error, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = [
            _FirstOrder.apply(grads[0].reshape(-1, *[1] * (s.ndim - 1)) * s, *ctx.saved_tensors[4:]) if need else None
            for s, need in zip(ctx.saved_tensors[:4], ctx.needs_input_grad[:4], strict=True)
        ]
        return (*needed, None)


class _FirstOrder(torch.autograd.Function):
    """The identity, tied to the inputs so that differentiating once more fails rather than being wrong."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError(
            "Sinkhorn's gradient is that of the envelope theorem and has no second derivative. Use a divergence that "
            "is differentiable twice (sliced_wasserstein, mmd, cramer_wold), or detach the gradient."
        )
