"""Sampling a diffusion model in few network evaluations against every step of its chain, at equal Fréchet distance.

Trains a ddpm of at most 1 M parameters on FashionMNIST, or takes the run folder in $GENREP_RUN, and draws images by all
ancestral steps and by each candidate; features of a LeNet. Time is that of drawing. `equal` says whether the intervals
overlap. Then: what a step of guided sampling costs in plain ones.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import genrep
from benchmarks.common import alternate, comparison, seconds, versions
from genrep.contracts import DataSpec
from genrep.data import load
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.extractors import extractor
from genrep.evaluation.frechet import frechet_distance
from genrep.models import build

SAMPLES = int(os.environ.get("GENREP_SAMPLES", "1000"))
STEPS = int(os.environ.get("GENREP_STEPS", "1200"))
MODEL = {"width": 16, "timesteps": 250}
CANDIDATES: tuple[dict[str, Any], ...] = (
    {"sampler": "dpm_solver", "evaluations": 20},
    {"sampler": "dpm_solver_sde", "evaluations": 20},
    {"sampler": "ddim", "evaluations": 20},
    {"sampler": "heun", "evaluations": 19},
    {"sampler": "ancestral", "evaluations": 20},
    {"sampler": "dpm_solver", "evaluations": 10},
)


def run() -> Iterator[dict[str, Any]]:
    splits = load("fashion_mnist")
    model = trained(splits)
    features = extractor("lenet", splits)
    real = features(splits.test[torch.arange(len(splits.test))].x)

    def measured(**how: Any) -> tuple[Estimate, float]:
        drawn: list[torch.Tensor] = []
        time = seconds(lambda: drawn.append(model.sample(SAMPLES, seed=0, **how)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the row says how many samples there are
            return frechet_distance(real=real, generated=features(drawn[0]), seed=0), time

    whole, slow = measured(sampler="ancestral")
    for how in CANDIDATES:
        few, fast = measured(**how)
        yield comparison(
            f"ddpm {how['sampler']}, {how['evaluations']} evaluations, against {model.generative.evaluations()} steps",
            fast,
            slow,
            target=10.0,
            equal=overlap(few, whole),
            frechet=rounded(few),
            frechet_of_all_steps=rounded(whole),
            samples=SAMPLES,
            parameters=sum(p.numel() for p in model.parameters()),
            features=features.hash,
            versions=versions(),
        )
    yield guided()


def trained(splits: Any) -> genrep.Model:
    """The model of $GENREP_RUN, or one trained here."""
    if folder := os.environ.get("GENREP_RUN"):
        return genrep.load(folder)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        how = {"batch": 64, "lr": 2e-3, "schedule": "cosine", "channels_last": "no", "samples": 0, "progress": False}
        return genrep.fit("ddpm", splits, steps=STEPS, out=out, options=MODEL, **how)


def guided() -> dict[str, Any]:
    """A step of classifier-free guidance, which is one evaluation of twice the batch, against 2.2 plain ones."""
    torch.manual_seed(0)
    spec = DataSpec((1, 28, 28), levels=256, classes=10)
    model = build("ddpm", spec, conditional=True, unconditional=0.1, **MODEL)
    how: dict[str, Any] = {"condition": 3, "seed": 0, "sampler": "ddim", "evaluations": 4}
    ours, plain = alternate(lambda: model.sample(64, guidance=2.0, **how), lambda: model.sample(64, **how))
    return comparison("a guided step against 2.2 plain ones", ours, 2.2 * plain, target=1.0, versions=versions())


def overlap(a: Estimate, b: Estimate) -> bool:
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def rounded(found: Estimate) -> list[float]:
    return [round(v, 3) for v in (found.value, *found.interval[:2])]
