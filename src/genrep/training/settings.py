"""How to train: one record of plain values, the same in Python, on the command line and in the run folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_origin, get_type_hints

import torch

from genrep.contracts import Model
from genrep.naming import choose, fits
from genrep.training import ranks

SUGGESTED = {
    "batch": 128,
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 100,
    "clip": 1.0,
    "ema": 0.999,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train. None: what the model suggests, else a library-wide default.

    Args:
        steps: Updates; for a model with several players the updates of all of them, for one with several stages those
            of every stage.
        batch: Examples in one batch (128).
        lr: Learning rate after the warm-up (1e-3).
        betas: Decay rates of AdamW's two moments (0.9, 0.999).
        weight_decay: AdamW's decoupled weight decay (0).
        warmup: Updates over which the learning rate rises linearly (100).
        schedule: What follows the warm-up: constant, a cosine that reaches zero at `horizon`, or exponential, which
            falls by the same factor in every update, to 6 % at `horizon`.
        horizon: Updates until a schedule ends; 0: the steps given at the start, so that resuming with more steps
            does not change the past.
        clip: Largest norm of the gradient (1); 0: unclipped.
        accumulate: Batches whose gradients are averaged in one update.
        ema: Decay of the exponential moving average of the weights, which sampling uses (0.999); 0: none.
        snapshot_every: Updates between two files of power-function averages, from which an average of any length can be
            made after training (`genrep.load(run, average=0.1)`); 0: none.
        seed: Of weights, batches and noise.
        device: auto takes an accelerator when there is one.
        precision: float32, or bfloat16 autocast; auto measures a few updates and takes the faster.
        channels_last: Memory layout of convolutions; auto measures along with the precision.
        sharded: Spread weights, averages and optimiser over the processes that torchrun started (FSDP2), for a model
            that is too large for one accelerator.
        compile: Compile the loss with torch.compile; pays on long runs only.
        log_every: Updates between two lines of the log, each their mean.
        validate_every: Updates between two measurements of the held-out loss; 0: never.
        patience: Stop after so many held-out measurements without improvement, and keep the best weights; 0: never.
        keep_best: Keep the weights of the best held-out measurement, without stopping early.
        tensorboard: Write the log for TensorBoard, too, into the folder tensorboard of the run.
        checkpoint_seconds: Seconds between two checkpoints; one more is written at the end.
    """

    steps: int = 1000
    batch: int | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    warmup: int | None = None
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    horizon: int = 0
    clip: float | None = None
    accumulate: int = 1
    ema: float | None = None
    snapshot_every: int = 0
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto", "yes", "no"] = "auto"
    sharded: bool = False
    compile: bool = False
    log_every: int = 50
    validate_every: int = 0
    patience: int = 0
    keep_best: bool = False
    tensorboard: bool = False
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Settings).items():
            value = getattr(self, name)
            if get_origin(kind) is not Literal and not fits(value, kind):
                raise ValueError(f"Expected {name} to be {getattr(kind, '__name__', kind)}, got {value!r:.60}.")
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= low):
                raise ValueError(f"Expected {name} >= {low}, got {value}.")
        if self.lr == 0:
            raise ValueError("Expected lr > 0, got 0.")
        if self.ema is not None and self.ema >= 1:
            raise ValueError(f"Expected ema in [0, 1), got {self.ema}.")
        if (self.patience or self.keep_best) and not self.validate_every:
            raise ValueError("patience and keep_best need held-out measurements; set validate_every as well.")
        choose(self.schedule, ("constant", "cosine", "exponential"), "schedule")
        choose(self.precision, ("auto", "float32", "bfloat16"), "precision")
        choose(self.channels_last, ("auto", "yes", "no"), "channels_last")

    def resolved(self, model: Model, examples: int) -> Settings:
        """Every None filled in, the device named, the batch checked against the number of examples.

        Where players have optimisers of their own, what the user left open there stays None: it is theirs to say.
        """
        suggested = SUGGESTED | {k: v for k, v in model.training_options.items() if k in SUGGESTED}
        if self.batch is not None and self.batch > examples:
            raise ValueError(f"Expected a batch of at most {examples}, the examples there are; got {self.batch}.")
        suggested["batch"] = min(suggested["batch"], examples)
        if "players" in model.training_options:
            suggested = {k: v for k, v in suggested.items() if k not in _PER_PLAYER}
        missing = {k: v for k, v in suggested.items() if getattr(self, k) is None}
        horizon = self.horizon or self.steps
        return dataclasses.replace(self, **missing, device=pick_device(self.device), horizon=horizon)

    def rate(self, step: int) -> float:
        """The factor of the learning rate in update `step`: linear warm-up, then constant or what the schedule says."""
        warmup = self.warmup or 0
        factor = min(1.0, (step + 1) / (warmup + 1))
        done = min(1.0, max(0, step - warmup) / max(1, self.horizon - warmup))
        if self.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "exponential":
            factor *= _LAST**done
        return factor

    def player(self, model: Model, name: str) -> dict[str, Any]:
        """AdamW's options for one player: what the user set, else what the model says for that player."""
        own: Mapping[str, Any] = model.training_options.get("players", {}).get(name, {})
        set_here = {k: v for k in _PER_PLAYER if (v := getattr(self, k)) is not None}
        return {k: SUGGESTED[k] for k in _PER_PLAYER} | dict(own) | set_here


_LAST = 0.98**140  # 140 epochs of a factor of 0.98
_PER_PLAYER = ("lr", "betas", "weight_decay")
_LOWEST = {
    "steps": 1,
    "batch": 1,
    "lr": 0,
    "weight_decay": 0,
    "warmup": 0,
    "horizon": 0,
    "clip": 0,
    "accumulate": 1,
    "ema": 0,
    "snapshot_every": 0,
    "seed": 0,
    "log_every": 1,
    "validate_every": 0,
    "patience": 0,
    "checkpoint_seconds": 0,
}


def pick_device(name: str) -> str:
    """`name`, or for auto the accelerator if there is one; a ValueError for a device that is not there.

    Of several processes each has its own accelerator, whatever number `name` says.
    """
    if name == "auto":
        name = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"] + ([str(torch.accelerator.current_accelerator())] if torch.accelerator.is_available() else [])
        raise ValueError(f"There is no device {name!r} here. There is: {', '.join(there)}.") from error
    return ranks.own_device(name)
