"""`genrep compare`: train several models alike, measure them alike, and report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from genrep import data as data_sets
from genrep import models as registry
from genrep import storage
from genrep.data.splits import Splits
from genrep.evaluation import cost, figures, report
from genrep.evaluation.estimate import NullCheck
from genrep.evaluation.features import Extractor, ExtractorName, extractor, fingerprint
from genrep.evaluation.measure import METRICS, Subject, measure, null
from genrep.interface import runs
from genrep.training import checkpoint
from genrep.training.log import read_log

_VALIDATE_EVERY = 100  # updates; a player against another has no held-out loss that falls
_SHOWN = 64  # samples in a picture


def compare(
    models: Sequence[str],
    data: str | os.PathLike[str] | Splits,
    *,
    out: str | os.PathLike[str],
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    samples: int = 2000,
    examples: int = 2000,
    features: ExtractorName = "auto",
    metrics: Sequence[str] = tuple(METRICS),
    progress: bool = True,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> dict[str, Any]:
    """Train each model for the same seconds or steps, measure it, and write `report.html` and `report.json` into `out`.

    Of a model that is trained alone, not against another player, the weights of the best held-out loss are kept.
    Models that `out` holds already stay, so that another call extends the comparison.

    Args:
        models: Names of models.
        data: A data set, by name, path or as splits.
        out: The folder of the report; each model's run is a folder in it.
        seconds: Of training for each model, turned once into steps by a short measurement. Or:
        steps: Updates for each model.
        seed: Of weights, batches, samples and the choice of test examples.
        samples: How many are drawn from each model for distances.
        examples: How many test examples are looked at, at most.
        features: In which distances are measured.
        metrics: Which ones, by name.
        progress: Show progress bars on a terminal.
        say: What to do with a line of news.
        **settings: Of training, for all models alike (see `Settings`).

    Returns:
        The report, as `report.json` holds it.

    Raises:
        ValueError: An unknown model or metric, or a folder whose report was made under another protocol.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("Give either seconds or steps of training for each model.")
    for name in models:
        registry.get(name)
    splits, folder = data if isinstance(data, Splits) else data_sets.load(data), Path(out)
    chosen = extractor(features, splits)
    protocol = _protocol(splits, chosen, seconds=seconds, steps=steps, seed=seed, samples=samples, examples=examples)
    protocol |= {"settings": {k: v for k, v in settings.items() if v is not None}}
    found = report.read(folder) or _empty(protocol, null(splits, chosen, examples=examples, seed=seed), metrics)
    _check_protocol(found["protocol"], protocol, folder)
    for name in dict.fromkeys(models):
        if name in found["models"]:
            say(f"{name}: measured before, kept.")
            continue
        say(f"{name}: training")
        entry = _train(name, splits, folder, seconds=seconds, steps=steps, seed=seed, progress=progress, **settings)
        say(f"{name}: measuring")
        model = runs.load(folder / name)
        subject = Subject(model, splits, chosen, samples=samples, examples=examples, seed=seed)
        entry["sampling"] = subject.sampling
        entry["metrics"] = report.as_json(measure(subject, metrics))
        storage.write_json(folder / name / "metrics.json", entry["metrics"])
        entry["pictures"] = _pictures(name, subject, folder)
        found["models"][name] = entry
        found["metrics"] = list(dict.fromkeys(m for e in found["models"].values() for m in e["metrics"]))
        report.write(found, folder)
    return found


def _protocol(
    splits: Splits, features: Extractor, *, seconds: float | None, steps: int | None, **how: int
) -> dict[str, Any]:
    """Everything that must agree for two numbers of a report to be compared."""
    return {
        "data": splits.name,
        "data_hash": fingerprint(splits),
        "counts": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        "split": " ".join(splits.about.get("split", [])),
        "budget": f"{steps} updates" if seconds is None else f"{seconds:g} s of training",
        **how,
        **features.protocol,
        "features_about": features.about,
        "hardware": cost.hardware(),
        "versions": {name: metadata.version(name) for name in ("genrep", "torch", "numpy")},
    }


def _empty(protocol: dict[str, Any], check: NullCheck, metrics: Sequence[str]) -> dict[str, Any]:
    low, high, _ = check.estimate.interval
    halves = {"value": check.estimate.value, "low": low, "high": high, "passed": check.passed}
    return {"schema": report.SCHEMA, "protocol": protocol, "null": halves, "metrics": list(metrics), "models": {}}


def _check_protocol(earlier: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    if changed := [k for k in sorted(earlier.keys() | now.keys()) if earlier.get(k) != now.get(k)]:
        told = "; ".join(f"{k} was {earlier.get(k)}, is {now.get(k)}" for k in changed)
        raise ValueError(
            f"{folder} holds a comparison under another protocol: {told}. Choose another --out, or the same protocol."
        )


def _train(
    name: str,
    splits: Splits,
    folder: Path,
    *,
    seconds: float | None,
    steps: int | None,
    seed: int,
    progress: bool,
    **settings: Any,
) -> dict[str, Any]:
    """Train one model, or go on where a run that was cut off stopped; what the report says of training."""
    run = folder / name
    cost.reset_peak_memory()
    if any((run / "checkpoints").glob("*.safetensors")):
        about = checkpoint.newest(run / "checkpoints")[1].about
        runs.resume(run, steps=about["settings"]["steps"], data=splits, samples=0, progress=progress)
    else:
        if run.exists():  # cut off before its first checkpoint
            shutil.rmtree(run)
        budget = {"seconds": seconds} if steps is None else {"steps": steps}
        alone = all(objective.turns == ("model",) for objective in registry.example(name).objectives)
        best = {"validate_every": _VALIDATE_EVERY, "keep_best": True} if alone else {}
        runs.fit(name, splits, out=run, seed=seed, samples=0, progress=progress, **budget, **best | settings)
    peak = cost.peak_memory()
    about, log = checkpoint.newest(run / "checkpoints")[1].about, read_log(run)
    speeds = sorted(r["images_per_second"] for r in log if "images_per_second" in r)
    training = {
        "steps": about["step"],
        "images_per_second": speeds[len(speeds) // 2],
        "mode": about["mode"],
        "log": log,
        **{f"peak_{where}": size for where, size in peak.items()},
    }
    return {"options": about["recipe"]["options"], "settings": about["settings"], "training": training}


def _pictures(name: str, subject: Subject, folder: Path) -> dict[str, str]:
    """PNG files of samples and reconstructions, by title; for tables histograms of the columns."""
    spec, x = subject.splits.spec, subject.real[0][:_SHOWN]
    pictures: dict[str, str] = {}
    if len(spec.shape) != 3:
        names = subject.splits.about.get("columns") or [f"column {i}" for i in range(spec.size)]
        figure = figures.histograms(subject.real[0].numpy(), subject.generated.numpy(), names)
        figure.savefig(folder / name / "samples.png", dpi=120)
        return {"samples and test data": f"{name}/samples.png"}

    def draw(title: str, file: str, images: torch.Tensor) -> None:
        data_sets.picture(images, spec, columns=8).save(folder / name / file)
        pictures[title] = f"{name}/{file}"

    draw("samples", "samples.png", subject.generated[:_SHOWN])
    if "reconstruct" in subject.model.capabilities:
        y = subject.conditions(len(x))
        with torch.no_grad():
            back = subject.model.reconstruct(x, condition=y).cpu()
        pairs = torch.stack([x[:32], back[:32]], 1).flatten(0, 1)
        draw("test examples, each before its reconstruction", "reconstructions.png", pairs)
    return pictures
