"""Accuracy with labels for a share of the training examples (thesis table 6.6.5).

`shares`: of the labels. `models`: variants; those with `diffusion: 0` are plain classifiers and see the labelled
examples alone. `probe: true` adds a linear probe, trained on the same labels, of the first generative model's features
as they are without the classifier's loss (weight 0): the "pre-trained" row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genrep import data as data_sets
from genrep.contracts import Model, evaluating
from genrep.data.batches import InMemory
from genrep.data.splits import Splits
from genrep.evaluation.features import examples
from genrep.evaluation.probe import probe
from genrep.interface.pieces import accuracy_of, brief, cell, kept, trained
from genrep.interface.variants import Variant, sized, variants

NEEDED = ("data", "models", "shares")
KEYS = ("models", "shares", "probe", "settings")
BUDGET = ("steps", "shape", "options", "settings", "examples")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    whole = data_sets.load(said["data"], shape=how.get("shape", ()))
    settings: dict[str, Any] = {"batch": 128, **said.get("settings", {}), **how.get("settings", {})}
    plain = partial(trained, steps=how["steps"], seed=seed, progress=progress)
    rows = {row.label: (row, {}) for row in variants(sized(said["models"], how.get("options")))}
    for share in said["shares"]:
        some = data_sets.with_labels(whole, share, seed)
        for row, found in rows.values():
            place = folder / f"{share:g}"
            data = _labelled_only(some) if row.options.get("diffusion", 1) == 0 else some
            small = min(settings["batch"], len(data.train))
            model = plain(row, data, place, **{**settings, "batch": small})
            found[share] = kept(place, f"{row.label} accuracy", partial(accuracy_of, model, whole))
    table = [
        [row.label, *[cell(found[s], percent="%") for s in said["shares"]], row.published]
        for row, found in rows.values()
    ]
    if said.get("probe"):
        table.append(_probed(said, how, whole, folder, plain, settings, seed))
    each = [round(s * len(whole.train) / whole.spec.classes) for s in said["shares"]]
    columns = ["model", *[f"{100 * s:g} % labels ({n} a class)" for s, n in zip(said["shares"], each, strict=True)]]
    protocol = (
        f"{whole.name} at {' x '.join(map(str, whole.spec.shape))}, {how['steps']} updates of "
        f"{settings['batch']} examples for each cell, best held-out loss kept, validation labelled; accuracy on "
        f"the {len(whole.test)} test examples, [ ] 95 % intervals; labels balanced over the classes and drawn "
        f"with seed {seed}."
    )
    return {"protocol": protocol, "columns": [*columns, "published"], "rows": table}


def _labelled_only(splits: Splits) -> Splits:
    train = splits.train
    assert isinstance(train, InMemory)
    assert train.y is not None
    known = train.y >= 0
    return splits._replace(train=InMemory(train.x[known], train.y[known], train.spec))


def _probed(
    said: Mapping[str, Any], how: Mapping[str, Any], whole: Splits, folder: Path, plain: Any, settings: Any, seed: int
) -> list[str]:
    """Logistic regression on frozen features of a model that has seen no label."""
    first = next(row for row in variants(sized(said["models"], how.get("options"))) if row.options.get("diffusion", 1))
    bare = Variant("without classifier", first.model, {**first.options, "weight": 0.0})
    model = plain(bare, whole, folder, **settings)

    def accuracy(share: float) -> dict[str, float]:
        train, (x, y) = _labelled_only(data_sets.with_labels(whole, share, seed)).train, examples(whole.test)
        assert y is not None
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: how.get("examples", 5000)]
        known, labels = train[index]
        assert labels is not None
        return brief(probe(_features(model, known.cpu()), labels.cpu(), _features(model, x), y, seed=seed))

    found = [kept(folder, f"probe {share:g}", partial(accuracy, share)) for share in said["shares"]]
    return ["diffusion alone, linear probe", *[cell(f, percent="%") for f in found], said.get("probe") or ""]


def _features(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), evaluating(model):
        return torch.cat([torch.cat(list(model.features(part).values()), 1).cpu() for part in x.split(256)])
