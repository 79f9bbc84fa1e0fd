"""The processes of one run, started together by `torchrun`; a process that was started alone is rank 0 of one.

R ranks that accumulate A batches each make the updates of one process that accumulates R A: batch m of rank r is batch
r A + m of that process, and draws its noise. Gradients and terms are averaged, so that weights and decisions agree on
all ranks; only buffers that a forward pass writes (replay, batch statistics) belong to their rank.
"""

from __future__ import annotations

import atexit
import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from genrep import storage
from genrep.contracts import Model, Terms

_PATIENCE = timedelta(minutes=10)  # a rank that says nothing for so long is lost


def join() -> None:
    """Meet the processes that `torchrun` started beside this one; alone, or a second time, nothing happens."""
    launched = dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1
    if not launched or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    atexit.register(_leave)


def _leave() -> None:
    """End the group while its threads can still be joined."""
    gc.collect()  # a wrapped model in a reference cycle would keep the group, and its threads, alive
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first() -> bool:
    """Whether this is the one process that writes."""
    return rank() == 0


def own_device(name: str) -> str:
    """`name`; where several processes share a machine, the accelerator of this one."""
    if world() == 1 or name == "cpu":
        return name
    local, count = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if not name.startswith("cuda") or local >= count:
        raise ValueError(f"Process {local} of this machine has no {name} device of its own: there are {count}.")
    torch.cuda.set_device(local)
    return "cuda"


def parallel(model: Model) -> nn.Module:
    """The model, wrapped so that a backward pass averages gradients over the ranks.

    Whose turn it is changes what a forward pass uses, hence `find_unused_parameters`; buffers belong to their rank.
    """
    if world() == 1:
        return model
    alike(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # later releases call broadcast_buffers by another name
        return DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)


def alike(model: Model) -> Model:
    """The model, with the weights of rank 0."""
    with torch.no_grad():
        for t in storage.state(model).values():
            dist.broadcast(t, 0)
    return model


# ---- what ranks tell each other; numbers on the CPU, so that no accelerator has to be waited for --------------------


def any_of(*flags: bool) -> list[bool]:
    """Each flag, true if it is true on some rank."""
    if world() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.bool().tolist()


def of_first(value: float) -> float:
    """The number that rank 0 has."""
    if world() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(found, 0)
    return found.item()


def lowest(value: int) -> int:
    """The smallest number on any rank."""
    if world() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def wait() -> None:
    """Until all ranks are here."""
    any_of(False)  # noqa: FBT003


def mean_terms(found: Sequence[Terms], names: Sequence[str]) -> Terms:
    """Mean of each term over the batches, of all ranks, that have it."""
    if unknown := {name for terms in found for name in terms} - set(names):
        raise ValueError(f"The objective returns {sorted(unknown)}, which it does not declare: its terms are {names}.")
    held = [[terms[name] for terms in found if name in terms] for name in names]
    counts = torch.tensor([len(values) for values in held])
    zero = next(iter(found[0].values())).new_zeros(())
    sums = torch.stack([torch.stack(values).sum() if values else zero for values in held])
    if world() > 1:
        dist.all_reduce(counts)
        dist.all_reduce(sums)
    return {name: s / n for name, s, n in zip(names, sums.unbind(), counts.tolist(), strict=True) if n}


def mean_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of batch normalisation by name, averaged over the ranks; nothing in one process."""
    if world() == 1:
        return {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    kinds = ("running_mean", "running_var")
    found = {f"{name}.{kind}": getattr(m, kind).detach().clone() for name, m in layers.items() for kind in kinds}
    for t in found.values():
        dist.all_reduce(t)
        t /= world()
    return found


@contextmanager
def reporting_loss() -> Iterator[None]:
    """A rank that goes away is told as such, not as the broken connection that the others see."""
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise ConnectionError(
            f"Rank {rank()} of {world()} lost another process of this run, or heard nothing of it for {_PATIENCE}. "
            "Its own message, if it could give one, says why. The last checkpoint is kept: resume from it."
        ) from error
