"""Counterfactuals of a joint model: how often they change the decision, by step size (thesis section 6.6.6).

`model`: options of joint_diffusion. `scales`: step sizes by kind of guidance, 0 for none. `shown`: {examples, guidance,
scale} of a picture; left out for faces, which are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genrep import data as data_sets
from genrep.applications.counterfactuals import NOISE, counterfactuals, others
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.evaluation.classification import accuracy
from genrep.evaluation.estimate import estimate
from genrep.evaluation.features import examples
from genrep.interface.pictures import counterfactual_picture
from genrep.interface.pieces import accuracy_of, brief, cell, kept, trained

NEEDED = ("data", "model", "scales")
KEYS = ("label", "model", "scales", "shown", "noise", "settings")
BUDGET = ("steps", "shape", "examples", "options", "settings")
COLUMNS = ["guidance, step size", "led to the other class", "p(other class)", "mean change of a pixel, % of the range"]


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    splits = data_sets.load(said["data"], label=said.get("label"), shape=tuple(how.get("shape", ())))
    settings = {**said.get("settings", {}), **how.get("settings", {})}
    row = {"label": "joint", "model": "joint_diffusion", **how.get("options", {}), **said["model"]}
    model = trained(row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **settings)
    right = kept(folder, "accuracy", partial(accuracy_of, model, splits))
    rows, noise, pictures = [], said.get("noise", NOISE), {}
    for guidance, scale in ((g, s) for g, scales in said["scales"].items() for s in scales):
        measure = partial(_changes, model, splits, how["examples"], noise, guidance, scale, seed)
        found = kept(folder, f"{guidance} {scale:g}", measure)
        told = [cell(found["flipped"], percent="%"), cell(found["p"]), cell(found["change"])]
        rows.append([f"{guidance} {scale:g}", *told])
    if said.get("shown") is not None:
        x, y = examples(splits.test)
        index = _both(y, said["shown"]["examples"])
        assert y is not None
        told = counterfactuals(model, x[index], others(y[index], splits.spec.classes), noise=noise,
                               guidance=said["shown"]["guidance"], scale=said["shown"]["scale"], seed=seed)  # fmt: skip
        counterfactual_picture(told, splits.spec, folder / "shown.png", splits.about.get("class_names", ()))
        pictures["counterfactuals"] = "shown.png"
    protocol = (
        f"{splits.name} at {' x '.join(map(str, splits.spec.shape))}, {how['steps']} updates, best held-out "
        f"loss kept; accuracy on the test split {cell(right, percent='%')}. The first {how['examples']} test "
        f"examples are noised to {noise:g} of the chain and walked back, every step drawn, towards another "
        f"class; the classifier that leads also judges. Step size 0: what noising and denoising change of "
        f"themselves. Seed {seed}, [ ] 95 % intervals."
    )
    return {"protocol": protocol, "columns": COLUMNS, "rows": rows, "pictures": pictures}


def _changes(
    model: Model, splits: Splits, n: int, noise: float, guidance: Any, scale: float, seed: int
) -> dict[str, Any]:
    x, y = examples(splits.test)
    assert y is not None
    index = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
    target = others(y[index], splits.spec.classes)
    told = counterfactuals(model, x[index], target, noise=noise, guidance=guidance, scale=scale, seed=seed)
    top = (splits.spec.levels or 2) - 1
    change = 100 * (told.changed.double() - told.original.double()).abs().flatten(1).mean(1) / top
    p = told.after.gather(1, target[:, None])[:, 0].double()
    means = {k: estimate(float(v.mean()), float(v.std()) / n**0.5, n=(n, 0)) for k, v in (("p", p), ("change", change))}
    return {"flipped": brief(accuracy(told.flipped)), **{k: brief(v) for k, v in means.items()}}


def _both(y: torch.Tensor | None, n: int) -> torch.Tensor:
    """The first n / 2 of class 0 and as many of class 1."""
    assert y is not None
    return torch.cat([(y == c).nonzero()[: n // 2, 0] for c in (0, 1)])
