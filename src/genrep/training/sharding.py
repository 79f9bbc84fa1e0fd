"""Weights, averages and optimiser spread over the processes of a run (FSDP2), for models too large for one accelerator.

The model that is trained is a copy whose parameters are DTensors: each rank holds its part of every one, and gathers
the others block by block when a pass needs them. What leaves the trainer, for checkpoints and for the model in the end,
is whole again, so that files and results are those of any run.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genrep.contracts import Model
from genrep.training import ranks
from genrep.training.settings import Settings


def check(model: Model, settings: Settings) -> None:
    """ValueError where sharding does not apply."""
    if ranks.world() == 1:
        raise ValueError(
            "sharded spreads a model over processes: start several, torchrun --nproc-per-node N -m genrep."
        )
    if any(objective.turns != ("model",) for objective in model.objectives):  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("sharded is for models that are trained alone, not one player against another.")
    if settings.channels_last == "yes" or settings.compile or settings.snapshot_every:
        raise ValueError("sharded goes with the default layout, without compile and snapshot_every: leave those out.")


def shard(model: Model, device: str) -> Model:
    """A copy of the model, sharded; blocks of its networks are gathered one at a time, the rest together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # here: half as long to import as torch itself

    copied = copy.deepcopy(ranks.alike(model))
    mesh = init_device_mesh(torch.device(device).type, (ranks.world(),))
    for block in reversed(list(_blocks(copied))):  # those inside others first
        fully_shard(block, mesh=mesh)
    fully_shard(copied, mesh=mesh, reshard_after_forward=True)  # so that whatever changes weights sees the parts
    return copied.to(device)  # buffers


def average_now(sharded: nn.Module, *, now: bool) -> None:
    """Whether the next backward pass averages gradients over the ranks."""
    module: Any = sharded
    module.set_requires_gradient_sync(now)


def _blocks(model: Model) -> Iterator[nn.Module]:
    """Members of lists in networks, which are used by calling them and in no other way."""
    for group in model.modules():
        for block in group if isinstance(group, nn.ModuleList) else ():
            if type(block).__module__.startswith("genrep.nets.") and next(block.parameters(), None) is not None:
                yield block


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors gathered, others as they are; on all ranks together."""
    return {name: gathered(t) for name, t in tensors.items()}


def gathered(t: Tensor) -> Tensor:
    """The whole of a sharded tensor, on all ranks together."""
    whole: Any = t
    return whole.full_tensor() if _sharded(t) else t


def _sharded(t: Tensor) -> bool:
    """Whether t is a DTensor; where nothing was sharded, what defines them has not been imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(t, module.DTensor)


def spread(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of this rank of whole tensors, where those in `like` are sharded."""
    return {name: placed_like(like[name], t) for name, t in tensors.items()}


def placed_like(like: Tensor, t: Tensor) -> Tensor:
    """A whole tensor of the shape of `like`, sharded as that is."""
    if not _sharded(like) or _sharded(t):
        return t
    from torch.distributed.tensor import distribute_tensor

    placed: Any = like
    return distribute_tensor(t.to(like.device), placed.device_mesh, placed.placements, src_data_rank=None)
