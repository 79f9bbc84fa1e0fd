"""Which example gets which code: a matching, by distance between an embedding and a code, or by a tree of the examples.

Distances are squared, |z - c|^2. Codes have one length, so that the nearest is that with the largest z . c.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Matching = Literal["greedy", "exact"]
_WHOLE = 4096  # examples that are matched exactly in one go; more in blocks


def distances(z: Tensor, codes: Tensor) -> Tensor:
    """|z - c|^2 of every pair, (B, M), of z (B, n) and codes (M, n), in float32 also where bfloat16 is on."""
    with torch.autocast(z.device.type, enabled=False):  # rounded to eight bits, most distances would be equal
        return z.square().sum(1, keepdim=True) + codes.shape[1] - 2 * z @ codes.T


def match(cost: Tensor, how: Matching) -> Tensor:
    """A column for each row of cost (B, M), B <= M, no column twice, (B,) int64.

    greedy: each row in turn takes what is cheapest of what is left (thesis, algorithm 2). exact: the sum is least.
    """
    rows, columns = cost.shape
    assert rows <= columns, (rows, columns)
    found = cost.detach().to("cpu", torch.float32).numpy()
    if how == "exact":
        return torch.from_numpy(linear_sum_assignment(found)[1]).to(cost.device)
    found = found.copy()
    chosen = np.empty(rows, np.int64)
    for i, row in enumerate(found):
        chosen[i] = row.argmin()
        found[:, chosen[i]] = np.inf
    return torch.from_numpy(chosen).to(cost.device)


def match_all(z: Tensor, codes: Tensor, how: Matching, block: int = 128) -> Tensor:
    """A code for each of as many embeddings (N, n), in a random order, block by block, (N,) int64.

    Up to 4,096 are matched exactly in one go where that is asked for.
    """
    n = len(z)
    if how == "exact":
        block = n if n <= _WHOLE else 1024
    chosen = torch.empty(n, dtype=torch.int64, device=z.device)
    taken = torch.zeros(n, dtype=torch.bool, device=z.device)
    for rows in torch.randperm(n).to(z.device).split(block):
        chosen[rows] = match_free(z[rows], codes, taken, how)
    return chosen


def match_free(z: Tensor, codes: Tensor, taken: Tensor, how: Matching) -> Tensor:
    """A code for each z (B, n) that is not among the taken (M,), which grow by them, (B,) int64."""
    free = (~taken).nonzero()[:, 0]
    chosen = free[match(distances(z, codes[free]), how)]
    taken[chosen] = True
    return chosen


def by_tree(x: Tensor, number: Tensor, bits: int, components: int = 32, iterations: int = 12) -> Tensor:
    """A number for each x (N, D), so that near x get numbers that agree in many low digits, (N,) places in `number`.

    The examples are halved along their first principal component, the halves along theirs, and so on: the k-th
    cut gives the k-th lowest digit. Codes whose numbers agree in the k lowest digits agree in k bits of every word, so
    near codes mean near examples. `number` (N,) differ modulo 2^bits.
    """
    n, modulus = len(x), 2**bits
    assert len(number) == n <= modulus, (n, len(number), modulus)
    x = x.flatten(1).float()
    x = x - x.mean(0)
    if min(x.shape) > components:
        x = x @ torch.pca_lowrank(x, q=components, center=False, niter=4)[2]
    digits = torch.zeros(n, dtype=torch.int64)
    x, number = x.cpu(), number.cpu() % modulus
    for level in range(bits):
        names, group = torch.unique(digits, return_inverse=True)
        low, zero = number % 2**level, (number >> level) % 2 == 0
        place = torch.searchsorted(names, low)  # every prefix of digits is held by as many numbers as examples
        zeros = torch.zeros(len(names), dtype=torch.int64).index_add_(0, place, zero.long())
        digits += (_rank(_along(x, group, len(names), iterations), group) >= zeros[group]).long() << level
    order = number.argsort()
    return order[torch.searchsorted(number[order], digits)]


def _along(x: Tensor, group: Tensor, groups: int, iterations: int) -> Tensor:
    """Where each x lies along the first principal component of its group, (N,), by power iteration."""

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(groups, values.shape[1]).index_add_(0, group, values)

    x = x - (summed(x) / summed(torch.ones(len(x), 1)))[group]
    v = summed(x * x[:, :1].sign()) + 1e-6  # any start that is not orthogonal to the component
    for _ in range(iterations):
        v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-12)
        v = summed(x * (x * v[group]).sum(1, keepdim=True)) + 1e-12
    return (x * v[group]).sum(1)


def _rank(value: Tensor, group: Tensor) -> Tensor:
    """The place of each value among those of its group, from 0, (N,)."""
    order = torch.from_numpy(np.lexsort((value.numpy(), group.numpy())))
    start = torch.searchsorted(group[order], group[order])
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - start
    return rank
