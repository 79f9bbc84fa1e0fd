"""What a model costs: parameters, speed, network evaluations, memory."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genrep.contracts import Model
from genrep.evaluation.estimate import Estimate, estimate


def hardware() -> str:
    """The accelerator, or the processor, and the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name}, {torch.get_num_threads()} threads"


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
