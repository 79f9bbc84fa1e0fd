"""Short measurements before training: which arithmetic is fastest, and how many updates fit into a time."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import nn

from genrep.contracts import Data, Model
from genrep.training import ranks
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer


class Speed(NamedTuple):
    mode: Mode
    seconds: float  # of one update


def candidates(model: Model, settings: Settings) -> list[Mode]:
    """The modes that the settings leave open."""
    convolutions = any(isinstance(m, nn.Conv2d) for m in model.modules())
    bfloat16 = {"float32": [False], "bfloat16": [True], "auto": [False, True]}[settings.precision]
    layouts = {"no": [False], "yes": [True], "auto": [False, True] if convolutions else [False]}[settings.channels_last]
    layouts = [False] if settings.sharded else layouts
    if settings.precision == "auto" and not fast_bfloat16(settings.device):
        bfloat16 = [False]
    return [Mode(b, c, settings.compile) for b in bfloat16 for c in layouts]


def fast_bfloat16(device: str) -> bool:
    """Whether the device multiplies matrices in bfloat16 by itself; elsewhere it is emulated, and slow."""
    if device.startswith("cpu"):
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def mode_for(model: Model, data: Data, settings: Settings, *, stage: int = 0, budget: float = 4.0) -> Mode:
    """The mode that the settings name, or the fastest of those that they leave open, found within `budget` seconds."""
    modes = candidates(model, settings)
    return modes[0] if len(modes) == 1 else fastest(model, data, settings, stage=stage, budget=budget).mode


def fastest(model: Model, data: Data, settings: Settings, *, stage: int = 0, budget: float = 4.0) -> Speed:
    """The fastest mode and the seconds of one update in it, measured within about `budget` seconds on updates undone.

    A mode other than float32 in the default layout must be a tenth faster than it to be taken. Ranks measure together
    and find the same.
    """
    ranks.join()
    modes = candidates(model, settings)
    trainer = Trainer(model, data, settings, modes[0], stage)
    found: list[Speed] = []
    with torch.random.fork_rng():
        for mode in modes:
            with trainer.rehearsal():
                trainer.use(mode)
                found.append(Speed(mode, _seconds(trainer, budget / len(modes))))
    return min(found, key=lambda speed: speed.seconds * (1.0 if speed.mode == modes[0] else 1.1))


def _seconds(trainer: Trainer, budget: float) -> float:
    """Median seconds of one update, all players in turn; at least one round after one of warm-up."""
    turns = len(trainer.turns)

    def one_round() -> float:
        start = time.perf_counter()
        for _ in range(turns):
            trainer.update()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        return (time.perf_counter() - start) / turns

    one_round()
    end, taken = time.perf_counter() + budget, [one_round()]
    while ranks.any_of(time.perf_counter() < end)[0] and len(taken) < 50:
        taken.append(one_round())
    return ranks.of_first(sorted(taken)[len(taken) // 2])
