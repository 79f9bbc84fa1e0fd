"""Samples against real data on one classifier's features, with a row of real data, and ratios above that floor.

`models` and `settings` as in `compare`. `label`: rows and data with labels. `ratio`: [[a, b], ...], pairs of labels of
which (a - real) / (b - real) is told. `show`: whether samples are pictured. `latent`: labels of rows whose latent space
is drawn by class. A budget says `steps` and `samples`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrep.contracts import Model, evaluating
from genrep.data.splits import Splits
from genrep.evaluation.estimate import Estimate, jackknifed
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor
from genrep.evaluation.frechet import frechet_distance, plug_in
from genrep.evaluation.report import as_json, revived
from genrep.interface.latent import classes_figure
from genrep.interface.pieces import kept, pm, rows_of, trained
from genrep.interface.samples import save_samples
from genrep.interface.variants import Variant
from genrep.naming import choose
from genrep.transport.sinkhorn import sinkhorn_divergence

NEEDED = ("data", "models")
KEYS = ("models", "settings", "label", "ratio", "show", "latent")
BUDGET = ("steps", "samples")
_CLOUD = 1000  # rows of each side in the Sinkhorn divergence
_CODES = 2000


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows, splits = rows_of(said)
    chosen, n = extractor("auto", splits), min(how.get("samples", 2000), len(splits.test) // 2)
    order = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))
    x, y = splits.test[order[:n]]
    reference = chosen(x)
    floor = _measured(reference, chosen(splits.test[order[n : 2 * n]].x), seed)
    found: dict[str, Any] = {"real data, other half": floor}
    pictures: dict[str, str] = {}
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        found[row.label] = kept(folder, row.label, lambda m=model: _sampled(m, y, reference, chosen, n, seed))
        if said.get("show", True):
            pictures[row.label] = str(_picture(model, splits, folder / f"{row.folder}.png", seed).relative_to(folder))
    if said.get("latent"):
        path = _latent(said["latent"], rows, splits, folder)
        pictures["latent space by class"] = str(path.relative_to(folder))
    return {
        "protocol": f"{how['steps']} updates a row, {n} samples against {n} test examples, features "
        f"{chosen.name} {chosen.hash}; Fréchet: extrapolated, ± its jackknife error; Sinkhorn: divergence of {_CLOUD} "
        "feature vectors, blur a tenth of their spread.",
        "columns": ["row", "Fréchet", "Fréchet, plug-in", "Sinkhorn"],
        "rows": [_line(label, entry) for label, entry in found.items()],
        "notes": [_ratio(a, b, found, revived(floor["frechet"])) for a, b in said.get("ratio", [])],
        "pictures": pictures,
    }


def _measured(reference: Tensor, features: Tensor, seed: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows: the table says how many
        distance = frechet_distance(real=reference, generated=features, seed=seed)
    a, b = reference[:_CLOUD].double(), features[:_CLOUD].double()
    blur = 0.1 * float((a - a.mean(0)).square().sum(1).mean().sqrt())
    return {
        "frechet": as_json({"frechet": distance})["frechet"],
        "plug_in": plug_in(real=reference, generated=features),
        "sinkhorn": float(sinkhorn_divergence(a, b, blur=blur)),
    }


def _sampled(model: Model, y: Tensor | None, reference: Tensor, chosen: Extractor, n: int, seed: int) -> dict[str, Any]:
    x = model.sample(n, condition=y if model.generative.reads_y else None, seed=seed)
    return _measured(reference, chosen(x.cpu()), seed)


def _line(label: str, entry: Mapping[str, Any]) -> list[str]:
    distance = entry["frechet"]
    return [
        label,
        pm(distance["value"], distance["standard_error"]),
        f"{entry['plug_in']:.2f}",
        f"{entry['sinkhorn']:.2f}",
    ]


def _ratio(a: str, b: str, found: Mapping[str, Any], real: Estimate) -> str:
    one, other = (revived(found[choose(label, found, "row")]["frechet"]) for label in (a, b))
    value = (one.value - real.value) / (other.value - real.value)
    replicates = [(p - r) / (q - r) for p, q, r in zip(one.replicates, other.replicates, real.replicates, strict=True)]
    ratio = jackknifed(value, replicates, n=one.n)
    low, high, _ = ratio.interval
    return f"({a} - real) / ({b} - real) = {value:.2f} [{low:.2f}, {high:.2f}]."


def _picture(model: Model, splits: Splits, path: Path, seed: int) -> Path:
    labels = torch.arange(64) % max(splits.spec.classes, 1)
    if not path.exists():
        x = model.sample(64, condition=labels if model.generative.reads_y else None, seed=seed)
        save_samples(x, model.data, path)
    return path


def _latent(labels: list[str], rows: list[Variant], splits: Splits, folder: Path) -> Path:
    """Codes of test data by class, one panel for each of these rows."""
    from genrep.interface import runs

    path, (x, y) = folder / "latent.png", splits.test[torch.arange(min(_CODES, len(splits.test)))]
    assert y is not None
    panels = []
    for label in labels:
        row = next(r for r in rows if r.label == choose(label, [r.label for r in rows], "row"))
        model = runs.load(folder / row.folder)
        with torch.no_grad(), evaluating(model):
            given = y if model.inference.latent.reads_y else None
            panels.append((label, model.encode(x, condition=given).flatten(1).cpu(), y.cpu()))
    return classes_figure(panels, path) if not path.exists() else path
