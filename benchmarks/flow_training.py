"""Density and training step of `maf` and `nsf` at equal size against zuko, nflows and normflows; 43 columns, batch 512.

Sizes agree in layers, units and, for splines, bins; parameters are counted. All train with the same fused AdamW. The
rivals of `maf`: MAF of zuko, masked affine autoregressive transforms of nflows. Of `nsf` (couplings between LU
matrices): the same of nflows and of normflows; of `nsf_ar`: zuko's NSF.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import alternate, comparison, versions
from genrep.contracts import DataSpec
from genrep.interface.rivals import rival
from genrep.models import build

COLUMNS, BATCH, LAYERS, WIDTH, BINS = 43, 512, 5, 128, 8
LogProb = Callable[[Tensor], Tensor]


def ours(name: str, **options: Any) -> tuple[nn.Module, LogProb]:
    model = build(name, DataSpec((COLUMNS,)), **options)
    return model, lambda x: model.generative().log_prob(x)


def theirs(name: str) -> tuple[nn.Module, LogProb]:
    part: Any = rival(name, DataSpec((COLUMNS,)), layers=LAYERS, width=WIDTH).generative
    return part.flow, part.log_prob


PAIRS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("maf", {"layers": LAYERS, "width": WIDTH}, "zuko_maf"),
    ("maf", {"layers": LAYERS, "width": WIDTH}, "nflows_maf"),
    ("nsf", {"couplings": LAYERS, "width": WIDTH, "bins": BINS}, "nflows_nsf"),
    ("nsf", {"couplings": LAYERS, "width": WIDTH, "bins": BINS}, "normflows_nsf"),
    ("nsf_ar", {"layers": LAYERS, "width": WIDTH, "bins": BINS}, "zuko_nsf"),
)


def step_of(model: nn.Module, log_prob: LogProb, x: Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    return step


def run() -> Iterator[dict[str, Any]]:
    warnings.simplefilter("ignore")
    for name, options, other in PAIRS:
        torch.manual_seed(0)
        x, (mine, ours_of), (foreign, rival_of) = torch.randn(BATCH, COLUMNS), ours(name, **options), theirs(other)
        sizes = {"parameters": _count(mine), "rival_parameters": _count(foreign)}
        step, rival_step = step_of(mine, ours_of, x), step_of(foreign, rival_of, x)
        about = f"{BATCH} rows of {COLUMNS} columns, against {other}"
        more: dict[str, Any] = {"versions": versions(other.split("_")[0]), **sizes}
        yield comparison(f"{name} training step, {about}", *alternate(step, rival_step, 15), target=1.0, **more)
        mine.eval(), foreign.eval()

        def scored(f: LogProb, x: Tensor = x) -> None:
            with torch.no_grad():
                f(x)

        both = alternate(lambda: scored(ours_of), lambda: scored(rival_of), 15)  # noqa: B023
        yield comparison(f"{name} density, {about}", *both, target=1.0, **more)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
