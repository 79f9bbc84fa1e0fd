"""Accuracy and samples of models that generate and classify with one network (thesis tables 6.6.1 and 6.6.2).

`models`: variants as in `compare`. `samples`: rows {label, of, guidance, scale, published}, each drawn from the model
`of`, led to the labels of test examples where there is guidance. All rows are trained with the same updates, drawn by
the same sampler with the same evaluations and measured against the same test examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genrep import data as data_sets
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.evaluation.coverage import prdc
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor, examples
from genrep.evaluation.frechet import frechet_distance
from genrep.interface.pieces import accuracy_of, brief, cell, kept, trained
from genrep.interface.variants import sized, variants

NEEDED = ("data", "models")
KEYS = ("models", "samples", "sampler", "settings")
BUDGET = ("steps", "samples", "examples", "evaluations", "features", "options", "settings")
COLUMNS = ["row", "accuracy", "Fréchet distance", "precision", "recall", "published"]


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    splits = data_sets.load(said["data"])
    settings = {**said.get("settings", {}), **how.get("settings", {})}
    features, rows, pictures = extractor(how.get("features", "auto"), splits), [], {}
    wanted = {"sampler": said.get("sampler", "ddim"), "evaluations": how.get("evaluations", 50)}
    measure = partial(_quality, splits=splits, features=features, how=how, seed=seed, wanted=wanted)
    for row in variants(sized(said["models"], how.get("options"))):
        model = trained(row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **settings)
        found = {}
        if "classify" in model.capabilities and row.options.get("weight", 1) > 0:
            found["accuracy"] = kept(folder, f"{row.label} accuracy", partial(accuracy_of, model, splits))
        if row.options.get("diffusion", 1) > 0:
            found |= kept(folder, f"{row.label} samples", partial(measure, model, {}, folder / f"{row.folder}.png"))
            pictures[row.label] = f"{row.folder}.png"
        rows.append(_row(row.label, found, row.published))
        for led in (r for r in said.get("samples", []) if r["of"] == row.label):
            options = {k: led[k] for k in ("guidance", "scale") if k in led}
            file = f"{row.folder}-{len(pictures)}.png"
            found = kept(folder, f"{led['label']} samples", partial(measure, model, options, folder / file))
            rows.append(_row(led["label"], found, led.get("published", "")))
            pictures[led["label"]] = file
    protocol = (
        f"{splits.name}, {how['steps']} updates for each model, best held-out loss kept; accuracy on the "
        f"{len(splits.test)} test examples; {how['samples']} samples by {wanted['sampler']} in "
        f"{wanted['evaluations']} evaluations against {how['examples']} test examples, features {features.name} "
        f"{features.hash}, seed {seed}. [ ]: 95 % intervals."
    )
    return {"protocol": protocol, "columns": COLUMNS, "rows": rows, "pictures": pictures}


def _quality(
    model: Model,
    options: Mapping[str, Any],
    picture: Path,
    *,
    splits: Splits,
    features: Extractor,
    how: Mapping[str, Any],
    seed: int,
    wanted: Mapping[str, Any],
) -> dict[str, Any]:
    """Distance, precision and recall of samples; those with guidance are led to the labels of test examples."""
    real, y = examples(splits.test, how["examples"])
    n, condition = how["samples"], None
    if options.get("guidance", "none") != "none" or model.generative.reads_y:
        assert y is not None
        condition = y[torch.arange(n) % len(y)]
    x = model.sample(n, condition=condition, seed=seed, **wanted, **options).cpu()
    data_sets.picture(x[:64], splits.spec, columns=8).save(picture)
    a, b = features(real), features(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples for the features: the interval shows it
        distance = frechet_distance(real=a, generated=b, seed=seed)
    covered = prdc(real=a, generated=b)
    return {
        "frechet": brief(distance),
        "precision": brief(covered.precision),
        "recall": brief(covered.recall),
    }


def _row(label: str, found: Mapping[str, Any], published: str) -> list[str]:
    quality = [cell(found.get(k)) for k in ("frechet", "precision", "recall")]
    return [label, cell(found.get("accuracy"), percent="%"), *quality, published]
