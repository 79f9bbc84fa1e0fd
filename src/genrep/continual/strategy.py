"""The contract of continual learning: a strategy turns the data of a task into phases of training.

The loop builds a strategy anew for every task and gives it what its `kept` modules held when the last task ended, and
nothing else. So old data are out of reach unless a strategy declares that it stores them, in bytes that are counted.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from genrep import storage
from genrep.contracts import Data, DataSpec, Model, Objective, Unsupported
from genrep.objectives.within import Jointly

_Module = TypeVar("_Module", bound=nn.Module)


class Setting(NamedTuple):
    """What a strategy knows before the first task."""

    make: Callable[[], Model]  # the model as it starts, the same at every call
    spec: DataSpec
    sizes: tuple[int, ...]  # training examples of each task
    seed: int = 0

    @property
    def tasks(self) -> int:
        return len(self.sizes)


class Phase(NamedTuple):
    """One fit inside a task. `start` and then `data` are called when it starts, and again when it resumes.

    Both find the strategy as it was when the phase started; weights of a checkpoint are read afterwards. `finish` is
    called once, when the phase ends, on the trained and averaged weights.
    """

    model: Model
    data: Callable[[], Data]
    stage: int = 0
    start: Callable[[], None] = lambda: None
    finish: Callable[[], None] = lambda: None
    fit: Mapping[str, Any] = {}  # settings of training.fit, and its still, before_update, after_update
    share: float | None = None  # of the steps of the task, among the phases that have one; None: all of them


@runtime_checkable
class Expecting(Protocol):
    """Data that want to know, before they are learnt from, how many of their examples a phase will ask for."""

    def expect(self, count: int) -> None: ...


class Strategy(nn.Module, ABC):
    """How to keep what was learnt: a list of phases per task. The position of a run is (task, phase, step).

    State is parameters and buffers of fixed shape, allocated in __init__; only training, `start` and `finish` change
    it. What a hook of a phase changes belongs into the model of that phase, whose checkpoints keep it.
    """

    model: Model  # what one samples from and scores after every task
    kept: tuple[str, ...] = ("model",)  # paths of modules that survive a task; their bytes are the memory ledger

    @abstractmethod
    def learn(self, task: int, data: Data) -> list[Phase]:
        """Pure: builds phases and changes nothing. A penalty is an objective added to the model's; replay is a Data
        around a Data.
        """

    def latents(self, task: int, n: int) -> Tensor | None:
        """n draws of a task, (n, D), in a latent space that tasks share, where there is one; also of the next task."""
        return None

    def recalled(self, task: int, n: int) -> Tensor | None:
        """Up to n examples of a task that was learnt, as the data hold them, where it is not the model that draws."""
        return None

    def model_for(self, task: int) -> Model:
        """The model that stands for a task that was learnt; the same for all, unless each has its own."""
        return self.model


def memory(strategy: Strategy) -> dict[str, Tensor]:
    """What survives a task, by name, each shared tensor once, under the first path that declares it."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path in strategy.kept:
        for name, t in storage.state(strategy.get_submodule(path)).items():
            if id(t) not in seen:
                seen.add(id(t))
                found[f"{path}.{name}" if path else name] = t
    return found


def ledger(strategy: Strategy) -> dict[str, int]:
    """Bytes of what survives a task, by the path that declares it."""
    seen: set[int] = set()
    found: dict[str, int] = {}
    for path in strategy.kept:
        new = {id(t): t for t in storage.state(strategy.get_submodule(path)).values() if id(t) not in seen}
        seen |= new.keys()
        found[path or "everything"] = sum(t.nbytes for t in new.values())
    return found


def frozen(module: _Module) -> _Module:
    """A copy that nothing trains: eval mode, no gradients."""
    return copy.deepcopy(module).eval().requires_grad_(requires_grad=False)


def needs(model: Model, capability: str, strategy: str) -> None:
    """Unsupported, with the strategy and the capability, unless the model has it."""
    try:
        model.require(capability)
    except Unsupported as reason:
        raise Unsupported(f"Strategy {strategy} needs a model that can {capability}. {reason}") from None


def stages(model: Model, data: Callable[[], Data], *, fit: Mapping[str, Any] | None = None) -> list[Phase]:
    """Plain training: a phase for each objective of the model, in order."""
    return [Phase(model, data, stage, fit=fit or {}) for stage in range(len(model.objectives))]


def extended(model: Model, stage: int, *added: Objective) -> Model:
    """The same parts with one objective: that of `stage` plus those added, on the same batch.

    Parameters and buffers are shared, not copied. A ValueError for an objective of several players.
    """
    return viewed(model, Jointly(cast(Objective, model.objectives[stage]), *added))


def viewed(model: Model, *objectives: Objective) -> Model:
    """The same parts, shared and not copied, with other objectives."""
    view = Model(
        model.data,
        model.generative,
        model.inference,
        *objectives,
        domain=model.domain,
        training=model.training_options,
    )
    view.recipe = model.recipe
    return view


@torch.no_grad()
def renewed(model: Model, setting: Setting) -> None:
    """Give a model the weights and buffers it started from."""
    fresh = storage.state(setting.make())
    for name, t in storage.state(model).items():
        t.copy_(fresh[name])
