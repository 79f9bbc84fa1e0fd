"""Maximum mean discrepancy with polynomial, Gaussian and inverse multiquadric kernels, unbiased, by blocks.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

The U-statistic leaves out the diagonal, so it is unbiased at any N and may be negative. Reference: Gretton et al.
(2012), eq. 3; the cubic kernel on features, Binkowski et al. (2018), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genrep.evaluation.arrays import Array, group_of, pair
from genrep.evaluation.estimate import Estimate, estimate, jackknifed
from genrep.evaluation.linear import product

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # (inner products, |x|^2, |y|^2) -> kernel values, in place


def cubic(width: int) -> Kernel:
    """k(x, y) = (x.y / d + 1)^3 - 1, the kernel of the kernel inception distance.

    The constant cancels from every MMD; without it float32 keeps more of what differs.
    """

    def kernel(inner: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        inner.mul_(1 / width)  # t; then t (t (t + 3) + 3)
        return (inner + 3).mul_(inner).add_(3).mul_(inner)

    return kernel


def gaussian(bandwidth: float) -> Kernel:
    """k(x, y) = exp(-|x - y|^2 / (2 h^2))."""

    def kernel(inner: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        return inner.mul_(2).sub_(x2).sub_(y2).clamp_(max=0).mul_(0.5 / bandwidth**2).exp_()

    return kernel


def inverse_multiquadric(bandwidth: float) -> Kernel:
    """k(x, y) = (1 + |x - y|^2 / h^2)^{-1/2}: tails so heavy that far samples still count."""

    def kernel(inner: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        return inner.mul_(-2).add_(x2).add_(y2).clamp_(min=0).mul_(1 / bandwidth**2).add_(1).rsqrt_()

    return kernel


def median_distance(x: Tensor, most: int = 1000) -> float:
    """The median distance between the first rows of x, a usual bandwidth; fix it over all models that are compared."""
    middle = float(torch.pdist(x[:most].double()).median())
    if not middle:
        raise ValueError("More than half of the distances between real rows are zero; pass bandwidth=.")
    return middle


def blocks(x: Tensor, y: Tensor, kernel: Kernel, block: int = 512) -> Iterator[tuple[slice, int, Tensor]]:
    """k(x_i, y_j) for `block` rows i at a time: (rows, first, values), with values of the columns from `first` on.

    Given x itself as y, only the pairs i < j are given, the others are zero or left out.
    """
    x2, y2, same = x.square().sum(1), y.square().sum(1), x is y
    for start in range(0, len(x), block):
        rows, first = slice(start, start + block), start if same else 0  # of a symmetric matrix, the upper half
        values = kernel(product(x[rows], y[first:].T), x2[rows, None], y2[first:])
        if same:
            square = values[:, : len(values)]
            square.copy_(square.triu(1))
        yield rows, first, values


def group_sums(x: Tensor, y: Tensor, gx: Tensor, gy: Tensor, kernel: Kernel, block: int = 512) -> Tensor:
    """Sums of k(x_i, y_j) over pairs of groups, (G, G) float64. Given x itself as y, the diagonal is left out."""
    groups = int(gx.max()) + 1
    sums = torch.zeros(groups, groups, dtype=torch.float64, device=x.device)
    columns = torch.nn.functional.one_hot(gy, groups).double()
    for rows, first, values in blocks(x, y, kernel, block):
        part = torch.zeros_like(sums)
        part.index_add_(0, gx[rows], values.double() @ columns[first:])
        sums += part + part.T if x is y else part
    return sums


def u_statistic(xx: Tensor, yy: Tensor, xy: Tensor, n: Tensor, m: Tensor, keep: Tensor) -> float:
    """Unbiased MMD^2 of the groups in the mask `keep`, from sums by pairs of groups and group sizes n, m."""
    both = torch.outer(keep, keep)
    a, b = float(n[keep].sum()), float(m[keep].sum())
    return float(xx[both].sum() / (a * (a - 1)) + yy[both].sum() / (b * (b - 1)) - 2 * xy[both].sum() / (a * b))


def mmd(
    *,
    real: Array,
    generated: Array,
    kernel: str = "gaussian",
    bandwidth: float | None = None,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Unbiased squared maximum mean discrepancy over all pairs, with a delete-group jackknife.

    real (N, d), generated (M, d); kernel "cubic", "gaussian" or "inverse multiquadric"; bandwidth h in units of the
    features, by default the median distance of the first 1,000 real rows.
    """
    x, y = pair(real, generated)
    stated: dict[str, Any] = {"metric": "mmd", "kernel": kernel, "estimator": f"u-statistic, jackknife {groups}"}
    if kernel == "cubic":
        k = cubic(x.shape[1])
    else:
        makers = {"gaussian": gaussian, "inverse multiquadric": inverse_multiquadric}
        if kernel not in makers:
            raise ValueError(f"Expected the kernel to be cubic, gaussian or inverse multiquadric, got {kernel!r}.")
        h = median_distance(x) if bandwidth is None else bandwidth
        if not (h > 0 and math.isfinite(h)):
            raise ValueError(f"Expected a bandwidth above zero, got {h}.")
        k, stated["bandwidth"] = makers[kernel](h), h
        shift = x.mean(0)
        x, y = x - shift, y - shift
    gx, gy = group_of(len(x), groups, seed).to(x.device), group_of(len(y), groups, seed + 1).to(x.device)
    sums = (group_sums(x, x, gx, gx, k), group_sums(y, y, gy, gy, k), group_sums(x, y, gx, gy, k))
    sizes = (gx.bincount(), gy.bincount())
    keep = ~torch.eye(groups, dtype=torch.bool, device=x.device)
    value = u_statistic(*sums, *sizes, torch.ones_like(keep[0]))
    replicates = [u_statistic(*sums, *sizes, mask) for mask in keep]
    return jackknifed(value, replicates, n=(len(x), len(y)), protocol=protocol, level=level, seed=seed, **stated)


def kernel_distance(*, real: Array, generated: Array, **how: Any) -> Estimate:
    """Kernel (inception) distance over all pairs: `mmd` with the cubic kernel. Unbiased, with the least variance."""
    return mmd(real=real, generated=generated, kernel="cubic", **how)


def kernel_distance_subsets(
    *,
    real: Array,
    generated: Array,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Kernel distance as papers print it: the mean over random subsets of `size` rows a side.

    Rows are shuffled into blocks of at least 2.5 `size`, and every subset is drawn within one block of either side, so
    that subsets share their kernel values: each is a uniform draw, as published, and their mean is as unbiased. The
    subsets overlap, so their spread is not the error of their mean: the standard error is
    s sqrt(1/subsets + size/min(N, M)), which counts what they share, on the wide side. `kernel_distance` is as
    unbiased, less noisy, and has a sounder interval.
    """
    x, y = pair(real, generated)
    least = min(len(x), len(y))
    if size < 2 or size > least:
        raise ValueError(f"Expected 2 <= size <= {least}, got {size}; pass a smaller size=.")
    if subsets < 2:
        raise ValueError(f"Expected at least 2 subsets for a standard error, got {subsets}.")
    count = max(1, min(subsets, int(least / (2.5 * size))))
    generator, k = torch.Generator().manual_seed(seed), cubic(x.shape[1])
    parts = [torch.randperm(len(of), generator=generator).tensor_split(count) for of in (x, y)]
    values = []
    for i, (rows_x, rows_y) in enumerate(zip(*parts, strict=True)):
        a, b = x[rows_x.to(x.device)], y[rows_y.to(y.device)]
        drawn = len(range(i, subsets, count))
        in_a, in_b = (_members(len(of), size, drawn, generator).to(of.device) for of in (a, b))
        values.append(_subset_distances(a, b, in_a, in_b, k))
    found = torch.cat(values)
    error = float(found.std()) * math.sqrt(1 / subsets + size / least)
    return estimate(
        float(found.mean()),
        error,
        n=(len(x), len(y)),
        protocol=protocol,
        level=level,
        metric="kernel distance",
        estimator=f"mean of {subsets} subsets of {size}",
        seed=seed,
    )


def _members(n: int, size: int, subsets: int, generator: torch.Generator) -> Tensor:
    """Random subsets of n rows as columns of zeros and ones, (n, subsets)."""
    inside = torch.zeros(n, subsets, dtype=torch.float64)
    for s in range(subsets):
        inside[torch.randperm(n, generator=generator)[:size], s] = 1
    return inside


def _subset_distances(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor, k: Kernel) -> Tensor:
    """The unbiased MMD^2 of every pair of subsets, (S,) float64, from each kernel value once."""
    sums = []
    for a, b, in_a, in_b in ((x, x, in_x, in_x), (y, y, in_y, in_y), (x, y, in_x, in_y)):
        total = torch.zeros(in_x.shape[1], dtype=torch.float64, device=x.device)
        for rows, first, values in blocks(a, b, k):
            total += ((values.double() @ in_b[first:]) * in_a[rows]).sum(0)
        sums.append(total)
    n = in_x.sum(0)
    return 2 * (sums[0] + sums[1]) / (n * (n - 1)) - 2 * sums[2] / n**2
