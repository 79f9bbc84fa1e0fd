"""`genrep compare`: train several models alike, measure them alike, and report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep import storage
from genrep.data.splits import Splits
from genrep.evaluation import cost, report
from genrep.evaluation.estimate import NullCheck
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor, fingerprint
from genrep.evaluation.gallery import gallery
from genrep.evaluation.measure import METRICS, USUAL, Subject, measure, null
from genrep.interface import folders, runs
from genrep.interface.variants import Variant, variants
from genrep.naming import choose
from genrep.training import checkpoint
from genrep.training.log import read_log
from genrep.training.settings import pick_device

_VALIDATE_EVERY = 100  # updates; a player against another has no held-out loss that falls


def compare(
    models: Sequence[str | Mapping[str, Any] | Variant],
    data: str | os.PathLike[str] | Splits,
    *,
    out: str | os.PathLike[str],
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    samples: int = 2000,
    examples: int = 2000,
    evaluations: int = 20,
    bound_evaluations: int = 20,
    features: str | Extractor = "auto",
    metrics: Sequence[str] | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> dict[str, Any]:
    """Train each model for the same seconds or steps, measure it, and write `report.html` and `report.json` into `out`.

    Of a model that is trained alone, not against another player, the weights of the best held-out loss are kept.
    Models that `out` holds already stay, so that another call extends the comparison; one that was cut off goes on.

    Args:
        models: Names of models, or mappings {label, model, and options of the model}, which give rows of that label.
        data: A data set, by name, path or as splits.
        out: The folder of the report; each model's run is a folder in it.
        seconds: Of training for each model, turned once into steps by a short measurement. Or:
        steps: Updates for each model; one with several stages shares them out evenly.
        seed: Of weights, batches, samples and the choice of test examples.
        samples: How many are drawn from each model for distances.
        examples: How many test examples are looked at, at most.
        evaluations: Of the network per sample of a chain, at most; chains are walked by DPM-Solver where they can be.
        bound_evaluations: Of the network per example, for a bound that is a sum over a chain: an unbiased estimate.
        features: In which distances are measured: auto, lenet, pca:64, inception:FILE (see `extractor`), or one made.
        metrics: Which ones, by name; None: all that do not take minutes.
        progress: Show progress bars on a terminal.
        say: What to do with a line of news.
        **settings: Of training, for all models alike (see `Settings`).

    Returns:
        The report, as `report.json` holds it.

    Raises:
        ValueError: An unknown model, option or metric, or a folder whose report was made under another protocol.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("Give either seconds or steps of training for each model.")
    rows = variants(models)
    wanted = USUAL if metrics is None else tuple(choose(name, METRICS, "metric") for name in metrics)
    splits, folder = data if isinstance(data, Splits) else data_sets.load(data), Path(out)
    for row in rows:
        row.build(splits.spec)
    chosen, counts = extractor(features, splits), {"samples": samples, "examples": examples}
    how: dict[str, Any] = {**counts, "evaluations": evaluations, "bound_evaluations": bound_evaluations}
    budget: dict[str, Any] = {"seconds": seconds} if steps is None else {"steps": steps}
    protocol = _protocol(splits, chosen, **budget, seed=seed, **how)
    protocol |= {"settings": {k: v for k, v in settings.items() if v is not None}}
    found = _begun(folder, protocol, lambda: null(splits, chosen, examples=examples, seed=seed), wanted)
    for row in rows:
        if _measured(row, found):
            say(f"{row.label}: measured before, kept.")
            continue
        start = time.perf_counter()
        say(f"{row.label}: training")
        entry = train_row(row, splits, folder, **budget, seed=seed, progress=progress, **settings)
        say(f"{row.label}: measuring")
        model = runs.load(folder / row.folder).to(pick_device(settings.get("device") or "auto"))
        subject = Subject(model, splits, chosen, seed=seed, **how)
        entry["sampling"] = subject.sampling
        entry["metrics"] = report.as_json(measure(subject, wanted))
        storage.write_json(folder / row.folder / "metrics.json", entry["metrics"])
        entry |= gallery(subject, folder, row.folder, wanted)._asdict()
        entry["seconds"] = round(time.perf_counter() - start, 1)  # of this call
        found["models"][row.label] = entry
        found["metrics"] = list(dict.fromkeys(m for e in found["models"].values() for m in e["metrics"]))
        report.write(found, folder)
    return found


def _begun(
    folder: Path, protocol: dict[str, Any], check: Callable[[], NullCheck], metrics: Sequence[str]
) -> dict[str, Any]:
    """The report of the folder so far; a new one is written at once, so that a run that is cut keeps its protocol."""
    found = report.read(folder)
    if found is None:
        found = _empty(protocol, check(), metrics)
        storage.write_json(folder / "report.json", found)
    _check_protocol(found["protocol"], protocol, folder)
    return found


def _measured(row: Variant, found: Mapping[str, Any]) -> bool:
    """Whether the report has this row; a ValueError if it has another model under its label."""
    entry = found["models"].get(row.label)
    if entry is None:
        return False
    earlier = (entry.get("model", row.label), {k: _plain(v) for k, v in entry["options"].items()})
    if earlier != (row.model, {k: _plain(v) for k, v in row.options.items()}):
        raise ValueError(
            f"The folder holds {row.label!r} as {earlier[0]} with {earlier[1]}, now it is {row.model} with "
            f"{row.options}. Choose another label, or another --out."
        )
    return True


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _protocol(
    splits: Splits, features: Extractor, *, seconds: float | None = None, steps: int | None = None, **how: int
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


def train_row(row: Variant, splits: Splits, folder: Path, *, seed: int, progress: bool, **how: Any) -> dict[str, Any]:
    """Train one model, or go on where a run that was cut off stopped; what the report says of training."""
    run = folder / row.folder
    cost.reset_peak_memory()
    if folders.has_checkpoint(run):
        about = folders.position(run)[1]
        _check_run(row, about, run)
        runs.resume(run, steps=about["settings"]["steps"], data=splits, samples=0, progress=progress)
    else:
        if run.exists():  # cut off before its first checkpoint
            shutil.rmtree(run)
        objectives = row.build(splits.spec).objectives
        alone = all(objective.turns == ("model",) for objective in objectives)
        best = {"validate_every": _VALIDATE_EVERY, "keep_best": True} if alone else {}
        if how.get("steps") is not None:  # equal budgets; `fit` gives each stage its `steps`
            how["steps"] = max(1, how["steps"] // len(objectives))
        how = {"seed": seed, "samples": 0, "progress": progress, **best, **how}
        runs.fit(row.model, splits, out=run, options=row.options, **how)
    peak, (stage, about) = cost.peak_memory(), folders.position(run)
    places = [folders.stage_folder(run, i, about["stages"]) for i in range(stage + 1)]
    logs = [read_log(place) for place in places]
    speeds = sorted(r["images_per_second"] for log in logs for r in log if "images_per_second" in r)
    training = {
        "steps": sum(checkpoint.newest(place / "checkpoints")[1].about["step"] for place in places),
        "images_per_second": speeds[len(speeds) // 2],
        "mode": about["mode"],
        "log": logs[-1],  # of the last stage
        **{f"peak_{where}": size for where, size in peak.items()},
    }
    about_row = {"model": row.model, "options": about["recipe"]["options"], "published": row.published}
    return {**about_row, "settings": about["settings"], "training": training}


def _check_run(row: Variant, about: Mapping[str, Any], run: Path) -> None:
    """A ValueError if the run that was cut off is of another model."""
    earlier, now = about["recipe"], {k: _plain(v) for k, v in row.options.items()}
    if (earlier["name"], earlier["options"]) != (row.model, now):
        raise ValueError(f"{run} holds a run of {earlier['name']} with {earlier['options']}: choose another --out.")
