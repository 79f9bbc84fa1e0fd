"""Kernel distances: maximum mean discrepancy (Gretton et al., 2012) and energy distance (Székely and Rizzo, 2013)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genrep.transport.clouds import Clouds, clouds, squared_distances

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the kernel's width; Tolstikhin et al., 2018, released code


def imq(squared: Tensor, width: float) -> Tensor:
    """Inverse multiquadratic kernel C / (C + |x - y|^2)."""
    return width / (width + squared)


def rbf(squared: Tensor, width: float) -> Tensor:
    """Gaussian kernel exp(-|x - y|^2 / C)."""
    return (-squared / width).exp()


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {"imq": imq, "rbf": rbf}


def mmd(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    kernel: str = "imq",
    std: float = 1.0,
    scales: Sequence[float] = SCALES,
    unbiased: bool = False,
) -> Tensor:
    """MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y): clouds (N, D) and (M, D) -> (); batches -> (B,).

    k is the sum over `scales` s of `imq` or `rbf` with C = 2 D std^2 s: 2 D std^2 is the mean squared distance of two
    points of a Gaussian prior N(0, std^2) (Tolstikhin et al., 2018, section 4). `unbiased` leaves out pairs of a point
    with itself, as the WAE does; it may be negative, and needs two points of positive weight on each side. The default
    is >= 0.

    Raises ValueError for an unknown kernel, std or scales not positive, and bad clouds.
    """
    if kernel not in KERNELS:
        raise ValueError(f"Expected one of the kernels {list(KERNELS)}, got {kernel!r}.")
    if not std > 0 or not scales or not all(s > 0 for s in scales):
        raise ValueError(f"Expected std > 0 and positive scales, got {std} and {list(scales)}.")
    pair = clouds(x, y, a, b)
    base = 2 * pair.x.shape[2] * std**2

    def similarity(u: Tensor, v: Tensor) -> Tensor:
        squared = squared_distances(u, v)
        return torch.stack([KERNELS[kernel](squared, base * s) for s in scales]).sum(0)

    return _discrepancy(pair, similarity, unbiased=unbiased)


def energy_distance(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, unbiased: bool = False
) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'|: clouds (N, D) and (M, D) -> (); batches -> (B,).

    >>> energy_distance(torch.tensor([[0.0]]), torch.tensor([[3.0]]))
    tensor(6.)
    """
    pair = clouds(x, y, a, b)
    far = lambda u, v: -torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist")  # noqa: E731
    return _discrepancy(pair, far, unbiased=unbiased)


def _discrepancy(pair: Clouds, similarity: Callable[[Tensor, Tensor], Tensor], *, unbiased: bool) -> Tensor:
    x, y, a, b, _ = pair
    with torch.autocast(x.device.type, enabled=False):
        cross = torch.einsum("bn,bnm,bm->b", a, similarity(x, y), b)
        return pair.result(_within(x, a, similarity, unbiased) + _within(y, b, similarity, unbiased) - 2 * cross)


def _within(x: Tensor, a: Tensor, similarity: Callable[[Tensor, Tensor], Tensor], unbiased: bool) -> Tensor:
    same = similarity(x, x)
    if not unbiased:
        return torch.einsum("bn,bnm,bm->b", a, same, a)
    if bool(((a > 0).sum(1) < 2).any()):
        raise ValueError("Expected at least two points of positive weight on each side for unbiased=True.")
    apart = same - torch.diag_embed(same.diagonal(dim1=1, dim2=2))
    return torch.einsum("bn,bnm,bm->b", a, apart, a) / (1 - a.square().sum(1))
