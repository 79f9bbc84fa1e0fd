"""What parts need of processes that train together, so that their statistics agree; one process alone is unaffected."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """The sum of `value` over the processes, in place."""
    if _world() > 1:
        dist.all_reduce(value)
    return value


def averaged(value: Tensor) -> Tensor:
    """The mean of `value` over the processes, in place."""
    return summed(value).div_(_world()) if _world() > 1 else value


def from_first(value: Tensor) -> Tensor:
    """What the first process holds, in place."""
    if _world() > 1:
        dist.broadcast(value, 0)
    return value
