"""Unregularised transport between clouds of equal size and weights, by assignment: the oracle for small clouds."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genrep.transport.clouds import clouds


def assignment(x: Tensor, y: Tensor, *, p: float = 2) -> Tensor:
    """Least mean over permutations s of |x_i - y_s(i)|^p / p: clouds (N, D) both -> (); batches -> (B,).

    Cubic in N, on the processor; differentiable at the best permutation. Raises ValueError for clouds of unequal size.

    >>> assignment(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]), p=1)
    tensor(2.)
    """
    pair = clouds(x, y)
    if pair.x.shape[1] != pair.y.shape[1]:
        raise ValueError(f"Expected clouds of one size, got {pair.x.shape[1]} and {pair.y.shape[1]} points.")
    if not p >= 1:
        raise ValueError(f"Expected p >= 1, got {p}.")
    distances = torch.cdist(pair.x.detach(), pair.y.detach(), compute_mode="donot_use_mm_for_euclid_dist").pow(p)
    best = [torch.as_tensor(linear_sum_assignment(cost)[1], device=x.device) for cost in distances.cpu().numpy()]
    matched = torch.stack([y_of[order] for y_of, order in zip(pair.y, best, strict=True)])
    return pair.result(torch.linalg.vector_norm(pair.x - matched, dim=2).pow(p).mean(1) / p)
