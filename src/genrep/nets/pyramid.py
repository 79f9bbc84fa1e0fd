"""Laplacian pyramids of images (Burt & Adelson, 1983)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def halved(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)): a binomial filter, then every second pixel."""
    c = x.shape[1]
    taps = torch.tensor(_BINOMIAL, dtype=x.dtype, device=x.device)
    across, down = taps.view(1, 1, 1, 5).expand(c, -1, -1, -1), taps.view(1, 1, 5, 1).expand(c, -1, -1, -1)
    x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), across, stride=(1, 2), groups=c)
    return F.conv2d(x, down, stride=(2, 1), groups=c)


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation to that size."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def laplacian(x: Tensor, levels: int) -> list[Tensor]:
    """Level j < levels - 1 is what halving loses at scale 2^j; the last is the remaining image.

    >>> [tuple(level.shape[2:]) for level in laplacian(torch.zeros(1, 1, 28, 28), 3)]
    [(28, 28), (14, 14), (7, 7)]
    """
    if levels < 1 or min(x.shape[2:]) < 2 ** (levels - 1):
        raise ValueError(f"Expected levels >= 1 and images of side >= {2 ** max(levels - 1, 0)}, got {tuple(x.shape)}.")
    found = []
    for _ in range(levels - 1):
        small = halved(x)
        found.append(x - enlarged(small, (x.shape[2], x.shape[3])))
        x = small
    return [*found, x]
