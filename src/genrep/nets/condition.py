"""From what is known of x to a vector that networks can read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.contracts import DataSpec


def condition_width(data: DataSpec, conditional: bool) -> int:
    """Width of y as `encode_condition` gives it: 0 without a condition, else classes or condition width.

    >>> condition_width(DataSpec((1, 8, 8), classes=10), True)
    10
    """
    if not conditional:
        return 0
    if not (data.classes or data.condition):
        raise ValueError("conditional=True needs labels or a condition, and this data set has neither.")
    return data.classes or data.condition


def encode_condition(y: Tensor | None, width: int, like: Tensor) -> Tensor:
    """y as floats, (B, width), B and device those of `like`: labels one-hot, zeros for -1 (unknown) and for None."""
    if y is None:
        return torch.zeros(len(like), width, device=like.device)
    if y.is_floating_point():
        return y
    return F.one_hot(y.clamp_min(0), width).float() * (y >= 0).unsqueeze(1)
