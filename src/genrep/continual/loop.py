"""The loop over tasks, with exact resume between tasks, between phases and inside them.

Before each task the strategy is built anew and given the tensors that its `kept` modules held; after it they are taken
out again, and all else is dropped: attributes, closures, buffers that were not declared, the data. A folder holds

    kept/003.safetensors       what survived task 3, with its bytes in the header
    tasks/003/phase0/          log and checkpoints of a phase; the checkpoints go when the task is done
    tasks/003/after0.safetensors  the whole strategy after a phase that others follow, until the task is done
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrep import storage
from genrep.continual.strategy import Expecting, Phase, Strategy, ledger, memory
from genrep.contracts import Model, seeded
from genrep.data.batches import InMemory
from genrep.data.streams import Stream
from genrep.evaluation.features import fingerprint
from genrep.training import loop as training
from genrep.training.settings import SUGGESTED, Settings, pick_device

Make = Callable[[], Strategy]
_WARMING = 10  # a phase warms up in at most a tenth of its updates
_HOOKS = ("still", "before_update", "after_update")


class Survived(dict[str, Tensor]):
    """What survived a task, by name: tensors that share no memory with the strategy they come from."""


def survived(strategy: Strategy) -> Survived:
    """A copy of what the strategy declares to keep; a ValueError for what is not finite."""
    kept = memory(strategy)
    if (name := storage.not_finite(kept)) is not None:
        raise FloatingPointError(f"{name} is not finite after the task. The task before it is kept.")
    return Survived({name: t.detach().to("cpu", copy=True) for name, t in kept.items()})


@torch.no_grad()
def revived(make: Make, kept: Survived | None, device: str, source: str = "what survived") -> Strategy:
    """A new strategy that holds what survived, and nothing else; None: as before the first task."""
    strategy = make().to(device)
    if kept is not None:
        mine = memory(strategy)
        storage.check(kept, mine, source)
        for name, t in kept.items():
            mine[name].detach().copy_(t)
    return strategy.eval()


def phase_seed(seed: int, task: int, phase: int) -> int:
    """The seed of one phase: a function of the position, so that tasks draw different noise."""
    return int(np.random.SeedSequence([seed, task, phase]).generate_state(1)[0] >> 1)


def learn(
    strategy: Strategy,
    task: int,
    data: InMemory,
    settings: Settings,
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> None:
    """Train a strategy on one task in place, from the phase and the update that `folder` has reached."""
    place = None if folder is None else folder / "tasks" / f"{task:03d}"
    phases, done = strategy.learn(task, data), 0
    if place is not None and (after := sorted(place.glob("after*.safetensors"))):
        done = len(after)
        storage.restore(strategy, storage.load(after[-1]).tensors, str(after[-1]))
    steps = updates(settings.steps, [phase.share for phase in phases])
    for number in range(done, len(phases)):
        here = None if place is None else place / f"phase{number}"
        how = dataclasses.replace(settings, steps=steps[number])
        _fit(phases[number], _settings(how, phases[number], task, number), here, progress=progress)
        with seeded(phase_seed(settings.seed + 1, task, number)):
            phases[number].finish()
        if place is not None and number + 1 < len(phases):
            storage.save(place / f"after{number:03d}.safetensors", storage.state(strategy), {"phase": number})


def updates(steps: int, shares: Sequence[float | None]) -> list[int]:
    """The steps of each phase: all of them, or one and its share of what is left, so that shares add up to `steps`.

    >>> updates(100, [None, 0.5, 0.5]), updates(10, [0.01, 0.49, 0.5])
    ([100, 50, 50], [1, 5, 4])
    """
    shared = [share for share in shares if share is not None]
    if len(shared) > steps:
        raise ValueError(f"Expected at least {len(shared)} steps, one for each phase of a task, got {steps}.")
    ends = [round((steps - len(shared)) * end / sum(shared)) for end in itertools.accumulate(shared)]
    each = iter([1 + b - a for a, b in itertools.pairwise([0, *ends])])
    return [steps if share is None else next(each) for share in shares]


def _settings(settings: Settings, phase: Phase, task: int, number: int) -> Settings:
    """Of one phase: a seed of its own, and a learning rate that rises for no more than a part of its updates."""
    own = {k: v for k, v in phase.fit.items() if k not in _HOOKS}
    if settings.warmup is None:
        usual = phase.model.training_options.get("warmup", SUGGESTED["warmup"])
        own = {"warmup": min(usual, settings.steps // _WARMING)} | own
    return dataclasses.replace(settings, seed=phase_seed(settings.seed, task, number), **own)


def _fit(phase: Phase, settings: Settings, folder: Path | None, *, progress: bool) -> None:
    with seeded(settings.seed):  # what they draw is the same when they are called again
        phase.start()
        data = phase.data()
    if settings.batch is not None:
        settings = dataclasses.replace(settings, batch=min(settings.batch, len(data)))
    if isinstance(data, Expecting):
        batch = settings.resolved(phase.model, len(data)).batch or 1
        data.expect(settings.steps * settings.accumulate * batch)
    hooks = {k: v for k, v in phase.fit.items() if k in _HOOKS}
    resume = folder is not None and any((folder / "checkpoints").glob("*.safetensors"))
    training.fit(
        phase.model, data, settings, stage=phase.stage, folder=folder, resume=resume, progress=progress, **hooks
    )


def run(
    make: Make,
    stream: Stream,
    settings: Settings,
    *,
    folder: Path | None = None,
    after: Callable[[Strategy, int, dict[str, int]], None] = lambda strategy, task, bytes_kept: None,
    progress: bool = False,
) -> Strategy:
    """Learn the tasks of a stream in order; the strategy after the last one.

    Args:
        make: Builds the strategy, the same at every call.
        stream: The tasks.
        settings: Of training, in every phase; its steps are those of a phase, or of all phases of
            a task that share them. Arithmetic that is left to be measured is
            float32, because a run that goes on must compute alike.
        folder: Where the run is kept, and from where it goes on if it was cut; None: nowhere.
        after: Called after each task with what survived (a new strategy), the task, and the bytes kept; again when a
            run goes on, for the last task that was finished.
        progress: Show bars on a terminal.

    Raises:
        ValueError: A folder of another stream; tensors of another shape than a strategy declared.
    """
    settings = dataclasses.replace(
        settings,
        precision="float32" if settings.precision == "auto" else settings.precision,
        channels_last="no" if settings.channels_last == "auto" else settings.channels_last,
        device=pick_device(settings.device),
    )
    about = {"stream": [fingerprint(task) for task in stream.tasks], "seed": settings.seed}
    task, kept, strategy = 0, None, None
    if folder is not None and (found := sorted((folder / "kept").glob("*.safetensors"))):
        kept, task = _read(found[-1], about), len(found)
        strategy = revived(make, kept, settings.device, str(found[-1]))
        after(strategy, task - 1, ledger(strategy))
    for t in range(task, len(stream.tasks)):
        strategy = revived(make, kept, settings.device)
        data = stream.tasks[t].train
        assert isinstance(data, InMemory)
        learn(strategy, t, data, settings, folder=folder, progress=progress)
        kept, bytes_kept = survived(strategy), ledger(strategy)
        if folder is not None:
            storage.save(folder / "kept" / f"{t:03d}.safetensors", kept, {**about, "task": t, "ledger": bytes_kept})
            _tidy(folder / "tasks" / f"{t:03d}")
        strategy = revived(make, kept, settings.device)
        after(strategy, t, bytes_kept)
    assert strategy is not None
    return strategy


def _read(path: Path, about: dict[str, Any]) -> Survived:
    found = storage.load(path)
    if differing := [k for k in about if found.about.get(k) != about[k]]:
        raise ValueError(
            f"{path} belongs to a run with another {' and '.join(differing)}: go on with the data, stream and seed "
            "of that run, or choose another folder."
        )
    return Survived(found.tensors)


def _tidy(place: Path) -> None:
    """Only the logs of a task that is done are left."""
    for path in place.glob("after*.safetensors"):
        path.unlink()
    for path in place.glob("phase*/checkpoints"):
        shutil.rmtree(path)


def models(strategy: Strategy, tasks: int) -> list[Model]:
    """The model of each of the first tasks."""
    return [strategy.model_for(t) for t in range(tasks)]
