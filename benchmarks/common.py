"""Fair timings: both sides warmed up, alternating, medians; what they ran on; peak memory in a process of its own."""

from __future__ import annotations

import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from genrep.evaluation.cost import hardware
from genrep.training.measure import fast_bfloat16


def seconds(f: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, device work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    f()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def cpu_seconds(f: Callable[[], object]) -> float:
    """Processor seconds of one call, over all threads; a busy machine moves them less than the wall clock."""
    start = time.process_time()
    f()
    return time.process_time() - start


def alternate(ours: Callable[[], object], rival: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Median seconds of both: a warm-up of each, then ours and rival in turn, so that both see the same machine."""
    ours(), rival()
    times = [(seconds(ours), seconds(rival)) for _ in range(repeats)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def precision(device: str = "cpu") -> Literal["bfloat16", "float32"]:
    """The faster arithmetic for training, ours or a rival's: bfloat16 where the device has it."""
    return "bfloat16" if fast_bfloat16(device) else "float32"


def flops(f: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        f()
    return counter.get_total_flops()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of these packages, Python and torch."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{p: metadata.version(p) for p in packages},
    }


def comparison(
    name: str,
    ours: float,
    rival: float,
    *,
    target: float | None,
    unit: str = "s",
    larger_is_better: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One row: `ratio` is how many times better ours is, whichever way the unit runs; `target` what it has to reach."""
    return {
        "name": name,
        "ours": round(ours, 4),
        "rival": round(rival, 4),
        "ratio": round(ours / rival if larger_is_better else rival / ours, 2),
        "target": target,
        "unit": unit,
        "hardware": hardware(),
        **more,
    }


def _measure(f: Callable[[], object], out: Any) -> None:
    f()
    out.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak_mebibytes(f: Callable[[], object]) -> float:
    """Peak resident memory of a new process that only runs f (importable), libraries and inputs included."""
    receive, send = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(f, send))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"The measured process ended with {process.exitcode}.")
    return round(receive.recv())
