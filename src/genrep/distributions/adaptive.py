"""Adaptive Runge-Kutta for batches: every example has its own steps, so that examples do not depend on each other.

Dormand & Prince, 1980: order 5 with an error estimate of order 4, from t = 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Field = Callable[[Tensor, Tensor, Tensor], Tensor]  # state (B, S), t (B,), rows (B,) of the batch -> d state / dt
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_MOST = 10_000  # steps of one example


def adaptive(field: Field, start: Tensor, tolerance: float) -> tuple[Tensor, Tensor, int]:
    """The state at t = 1, without gradient: end (B, S), accepted step sizes (K, B), evaluations of the field.

    A step is accepted where the root mean square of error / (1 + |state|) is at most `tolerance` (or what rounding
    allows, ten times the dtype's epsilon). Rows that have arrived are no longer evaluated; their later steps are zero.
    Raises FloatingPointError where 10,000 steps do not suffice.
    """
    tolerance = max(tolerance, 10 * torch.finfo(start.dtype).eps)
    n, device = len(start), start.device
    end, rows, x = start.clone(), torch.arange(n, device=device), start
    t, h = start.new_zeros(n), start.new_full((n,), 0.05)
    count, sizes = torch.zeros(n, dtype=torch.long, device=device), start.new_zeros(16, n)
    first, evaluations = field(x, t, rows) if n else x, 1
    while len(rows):
        h = torch.minimum(h, 1 - t)
        slopes = _slopes(field, x, t, h, rows, first)
        new, last = slopes[-1]
        error = h[:, None] * sum(w * k for w, (_, k) in zip(_ERROR, slopes, strict=True) if w)
        ratio = (error / (1 + torch.maximum(x.abs(), new.abs()))).square().mean(1).sqrt() / tolerance
        good, evaluations = ratio <= 1, evaluations + 6
        if int(count.max()) + 1 >= len(sizes):
            sizes = torch.cat([sizes, torch.zeros_like(sizes)])
        if len(sizes) > 2 * _MOST:
            raise FloatingPointError(
                f"The equation needs more than {_MOST} steps at tolerance {tolerance:g}: raise it."
            )
        sizes[count[rows[good]], rows[good]] = h[good]
        count[rows[good]] += 1
        t = torch.where(good, t + h, t)
        x, first = torch.where(good[:, None], new, x), torch.where(good[:, None], last, first)
        growth = (0.9 * ratio.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0).nan_to_num(0.2)
        arrived = t >= 1 - 1e-6 if start.dtype != torch.float64 else t >= 1 - 1e-14
        end[rows[arrived]] = x[arrived]
        rows, x, t, h, first = (v[~arrived] for v in (rows, x, t, h * growth, first))
    return end, sizes[: int(count.max()) if n else 0], evaluations


def replay(field: Field, start: Tensor, sizes: Tensor, *, recompute: bool) -> Tensor:
    """The state after steps of these sizes (K, B), with the gradient of exactly this computation.

    `recompute`: the backward pass keeps the state before each step and makes its stages anew, one step at a time, so
    that memory does not grow with what is inside a step.
    """
    rows, x, t = torch.arange(len(start), device=start.device), start, torch.zeros_like(start[:, 0])

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return _slopes(field, x, t, h, rows, field(x, t, rows), stages=6)[-1][0]

    for h in sizes:
        x = checkpoint(step, x, t, h, use_reentrant=False) if recompute else step(x, t, h)
        t = t + h
    return x


def _slopes(
    field: Field, x: Tensor, t: Tensor, h: Tensor, rows: Tensor, first: Tensor, stages: int = 7
) -> list[tuple[Tensor, Tensor]]:
    """Where the field is evaluated and what it is there; the seventh place is the end of the step, of order 5."""
    found = [(x, first)]
    for k in range(1, stages + (stages < 7)):
        at = x + h[:, None] * sum(w * slope for w, (_, slope) in zip(_STAGES[k], found, strict=True) if w)
        found.append((at, field(at, t + _NODES[k] * h, rows) if k < stages else at))
    return found
