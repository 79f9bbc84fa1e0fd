"""Fréchet distance, kernel distance and PRDC on 10,000 x 2,048 features against torch-fidelity and prdc.

Same arrays, same quantity, same threads. The rivals' routines for features are NumPy and never touch torchvision, which
torch-fidelity imports for its networks: where it is absent, empty modules stand for it. Processor seconds are measured
beside wall-clock seconds, because they hardly depend on what else the machine does.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import alternate, comparison, cpu_seconds, peak_mebibytes, versions
from genrep.evaluation.coverage import prdc
from genrep.evaluation.frechet import plug_in
from genrep.evaluation.kernel import kernel_distance, kernel_distance_subsets

N, WIDTH = 10_000, 2_048


def arrays(n: int = N, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Two sets like pooled activations: correlated, rectified, with a decaying spectrum; float32."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=g) * (-torch.arange(width) / (width / 10)).exp()[:, None] * 0.2

    def draw(scale: float) -> Tensor:
        return (
            torch.randn(n, width, generator=g) @ mix * scale + 0.1 * torch.randn(n, width, generator=g) + 0.3
        ).relu()

    return draw(1.0), draw(1.05)


def ours(name: str, sets: tuple[Tensor, Tensor] | None = None) -> Any:
    x, y = arrays() if sets is None else sets
    f = {
        "frechet": plug_in,
        "kernel": kernel_distance_subsets,
        "kernel, all pairs": kernel_distance,
        "prdc": prdc,
    }[name]
    return f(real=x, generated=y)


def stand_in_for_torchvision() -> None:
    """Empty modules where torchvision is absent, so that torch-fidelity can be imported."""
    if importlib.util.find_spec("torchvision") is not None:
        return

    class Empty(types.ModuleType):
        __path__: list[str] = []

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ("", ".datasets", ".models", ".transforms", ".transforms.functional"):
        module = sys.modules[f"torchvision{name}"] = Empty(f"torchvision{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def run() -> Iterator[dict[str, Any]]:
    stand_in_for_torchvision()
    from prdc import compute_prdc
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    sets = arrays()

    def fid() -> float:
        both = (fid_features_to_statistics(t) for t in sets)
        return fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]

    def kid() -> float:
        how = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}
        found = kid_features_to_metric(
            *sets, **how, kid_kernel_poly_coef0=1, kid_subsets=100, kid_subset_size=1000, rng_seed=0, verbose=False
        )
        return found["kernel_inception_distance_mean"]

    def neighbours() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            return compute_prdc(*(t.numpy() for t in sets), nearest_k=5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rivals = {"frechet": fid, "kernel": kid, "kernel, all pairs": kid, "prdc": neighbours}
        for name, rival in rivals.items():
            fast, slow = alternate(partial(ours, name, sets), rival)
            cpu = cpu_seconds(partial(ours, name, sets)), cpu_seconds(rival)
            values = {"value": _values(ours(name, sets)), "rival_value": _values(rival())}
            package = "prdc" if name == "prdc" else "torch-fidelity"
            memory = peak_mebibytes(partial(ours, name))
            yield comparison(
                f"{name}, {N} x {WIDTH}, against {package}",
                fast,
                slow,
                target=3.0 if name != "kernel, all pairs" else 1.0,
                cpu_seconds=[round(t, 2) for t in cpu],
                cpu_ratio=round(cpu[1] / cpu[0], 2),
                peak_mebibytes=memory,
                versions=versions(package),
                **values,
            )


def _values(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: float(v) for name, v in found.items()}
    if hasattr(found, "precision"):
        return {name: v.value for name, v in found._asdict().items()}
    return float(getattr(found, "value", found))
