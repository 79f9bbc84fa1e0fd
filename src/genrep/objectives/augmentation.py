"""Random changes of images that leave their class as it is."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLE, SHIFT, SIZE, CONTRAST = 10.0, 0.08, 0.1, 0.2  # degrees; share of the side; relative; relative


def augmented(x: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], each turned, moved, scaled and changed in contrast at random.

    Uniform within +- ANGLE degrees, SHIFT of the side, SIZE and CONTRAST. What enters at the border repeats the edge.
    Nothing is mirrored, because a mirrored digit is another sign.
    """
    n = len(x)

    def uniform(size: float) -> Tensor:
        return (2 * torch.rand(n, device=x.device) - 1) * size

    angle, zoom = uniform(math.radians(ANGLE)), 1 + uniform(SIZE)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    rows = torch.stack([cos, -sin, uniform(2 * SHIFT), sin, cos, uniform(2 * SHIFT)], 1)
    places = F.affine_grid(rows.view(n, 2, 3), list(x.shape), align_corners=False).to(x.dtype)
    moved = F.grid_sample(x, places, padding_mode="border", align_corners=False)
    return (moved * (1 + uniform(CONTRAST)).view(-1, 1, 1, 1)).clamp(-1, 1)
