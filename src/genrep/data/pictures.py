"""Pictures of examples: grids of images, for data sets and samples alike."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genrep.contracts import DataSpec

_GAP = 2  # pixels between tiles
_SMALLEST = 48  # tiles are enlarged by whole factors to at least this size
_BACKGROUND = 128  # grey, so that black and white images both end visibly


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images (N, C, H, W) uint8 with C of 1, 3 or 4, row by row; small ones are enlarged without smoothing.

    >>> grid(torch.zeros(6, 1, 64, 64, dtype=torch.uint8), columns=3).size
    (200, 134)
    """
    x = images.cpu().numpy()
    if x.ndim != 4 or x.shape[1] not in (1, 3, 4) or x.dtype != np.uint8 or not len(x):
        raise ValueError(f"Expected images (N, C, H, W) uint8 with C of 1, 3 or 4, got {x.shape} {x.dtype}.")
    n, c, h, w = x.shape
    columns = columns or math.ceil(math.sqrt(n))
    factor = math.ceil(_SMALLEST / max(h, w))
    x = x.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    h, w, rows = h * factor + _GAP, w * factor + _GAP, math.ceil(n / columns)
    sheet = np.full((rows * h + _GAP, columns * w + _GAP, c), _BACKGROUND, np.uint8)
    for i, image in enumerate(x):
        top, left = i // columns * h + _GAP, i % columns * w + _GAP
        sheet[top : top + h - _GAP, left : left + w - _GAP] = image
    return Image.fromarray(sheet[:, :, 0] if c == 1 else sheet)


def picture(x: Tensor, spec: DataSpec, columns: int | None = None) -> Image.Image:
    """A grid of examples x (N, *shape) as the data set holds them: levels or, scaled by their extremes, real values."""
    if len(spec.shape) != 3:
        raise ValueError(f"Expected images (C, H, W) to draw, the data have shape {spec.shape}.")
    return grid(to_bytes(x, spec), columns)


def to_bytes(x: Tensor, spec: DataSpec) -> Tensor:
    """Level k of K at round(255 k / (K - 1)), uint8; real values from black, the smallest of x, to white, the largest.

    >>> to_bytes(torch.tensor([0, 8, 16]), DataSpec((1,), levels=17)).tolist()
    [0, 128, 255]
    """
    if spec.levels == 256 and x.dtype == torch.uint8:
        return x
    x = x.double()
    low, high = (0.0, spec.levels - 1.0) if spec.levels is not None else (float(x.min()), float(x.max()))
    if not math.isfinite(high - low):
        raise ValueError("Expected finite values to draw, some are NaN or infinite.")
    return ((x - low) * (255 / max(high - low, 1e-300))).clamp(0, 255).round().to(torch.uint8)
