"""What a model costs: parameters, speed, network evaluations, memory."""

from __future__ import annotations

import copy
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from genrep.contracts import Batch, Data, Model
from genrep.evaluation.estimate import Estimate, estimate
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer


def hardware() -> str:
    """The accelerator, or the processor with its vector instructions and the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    threads, vectors = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return f"{name} ({vectors}), {threads} thread{'s' * (threads > 1)}"


def parameters(model: Model) -> int:
    """Learnt numbers of the generative and inference parts, shared ones once; critics of the training not counted."""
    parts = (*model.generative.parameters(), *model.inference.parameters())
    return sum(p.numel() for p in {id(p): p for p in parts}.values())


def sampling_speed(
    model: Model, n: int, *, condition: Any = None, repeats: int = 5, protocol: dict[str, Any] | None = None, **how: Any
) -> dict[str, Estimate]:
    """Samples per second in batches of n, the median of `repeats` after one of warm-up, and seconds to a first sample.

    The interval is that of a mean over the repeats; n is (0, n). `first_sample` is one sample alone, warm.
    """

    def timed(count: int) -> float:
        start = time.perf_counter()
        model.sample(count, condition=None if condition is None else condition[:count], seed=0, batch=n, **how)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter() - start

    def of(take: Callable[[], float], metric: str, count: int) -> Estimate:
        values = [take() for _ in range(repeats)]
        error = statistics.stdev(values) / repeats**0.5
        return estimate(
            statistics.median(values),
            error,
            n=(0, count),
            degrees=repeats - 1,
            protocol=protocol,
            metric=metric,
            estimator=f"median of {repeats}",
            device=str(model.device),
        )

    timed(1)
    first = of(lambda: timed(1), "seconds to one sample", 1)
    timed(n)
    return {"sampling_speed": of(lambda: n / timed(n), "samples per second", n), "first_sample": first}


def training_speed(
    model: Model, data: Data, *, repeats: int = 5, seconds: float = 1.0, protocol: dict[str, Any] | None = None
) -> Estimate:
    """Training examples per second in float32, the median of `repeats` after a warm-up, of the first stage.

    Updates run on a copy of the model, with its own settings, for about `seconds` in each repeat; the interval is that
    of a mean over the repeats.
    """
    settings = Settings(steps=1, device=str(model.device), precision="float32").resolved(model, len(data))
    trainer = Trainer(copy.deepcopy(model), data, settings, Mode(), 0)
    turns, batch = len(trainer.turns), settings.batch or 1

    def rounds(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count * turns):
            trainer.update()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter() - start

    with torch.random.fork_rng(), trainer.rehearsal():
        rounds(1)
        count = max(1, round(seconds / rounds(1)))
        values = [batch * turns * count / rounds(count) for _ in range(repeats)]
    return estimate(
        statistics.median(values),
        statistics.stdev(values) / repeats**0.5,
        n=(len(data), 0),
        degrees=repeats - 1,
        protocol=protocol,
        metric="training examples per second",
        estimator=f"median of {repeats}",
        device=str(model.device),
        batch=batch,
        stage=f"1 of {len(model.objectives)}",
    )


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in one call; others do not count."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def floating_point_operations(model: Model, batch: Batch, **how: Any) -> dict[str, int]:
    """Operations per example of one loss with its gradient ("training"), and of one sample where it can be drawn.

    Only what is countable is there: a model whose work is in other operations, or whose gradient is not of one loss,
    has no entry.
    """
    copied = copy.deepcopy(model).train()
    objective: Any = copied.objectives[0]
    n, x = len(batch.x), batch.x.to(model.device)
    y = None if batch.y is None else batch.y.to(model.device)

    def loss() -> None:
        objective.total(copied(Batch(x, y), 0, objective.turns[0])).backward()

    def sample() -> None:
        condition = y[:1] if y is not None and model.generative.reads_y else None
        model.sample(1, condition=condition, seed=0, **how)

    with torch.random.fork_rng():
        found = {"training": operations(loss) // n}
        if model.generative.can_sample:
            found["sampling"] = operations(sample)
    return {name: count for name, count in found.items() if count}


def reset_peak_memory() -> None:
    """Forget earlier peaks of this process where the system can (Linux) and of the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    control = Path("/proc/self/clear_refs")
    if control.exists():
        control.write_text("5")


def peak_memory() -> dict[str, int]:
    """Bytes: the largest resident set of this process since the last reset (where the system can), and accelerator."""
    found = {"host": _peak_of_process()}
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.max_memory_allocated()
    return found


def _peak_of_process() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
