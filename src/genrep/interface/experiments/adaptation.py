"""Accuracy on target data before and after the diffusion has seen them without labels (thesis table 6.6.6).

`pairs`: rows {source, target, published}. `models`: {joint: options, classifier: options}. `shape`: what both sets are
brought to. For each pair: the plain classifier and the joint model of the source on the target, the joint model after
adaptation, and a classifier trained on the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.interface import folders, runs
from genrep.interface.adapt import LR, adapt
from genrep.interface.pieces import accuracy_of, cell, kept, trained

NEEDED = ("pairs", "models")
KEYS = ("pairs", "models", "settings")
BUDGET = ("steps", "adapt_steps", "shape", "options", "settings")
COLUMNS = ["source to target", "classifier", "joint", "joint, adapted", "classifier on target", "published"]


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    settings, rows = {**said.get("settings", {}), **how.get("settings", {})}, []
    shape, load = how["shape"], partial(data_sets.load, shape=tuple(how["shape"]))
    plain = partial(trained, steps=how["steps"], seed=seed, progress=progress, **settings)
    joint, classifier = (
        {"model": "joint_diffusion", **how.get("options", {}), **said["models"][k]} for k in ("joint", "classifier")
    )
    for pair in said["pairs"]:
        place, source, target = (
            folder / f"{pair['source']}-{pair['target']}",
            load(pair["source"]),
            load(pair["target"]),
        )
        one = plain({"label": "classifier", **classifier}, source, place)
        two = plain({"label": "joint", **joint}, source, place)
        best = plain({"label": "target", **classifier}, target, place)
        moved = _adapted(place, target, how["adapt_steps"], seed=seed, progress=progress, **settings)
        models = {"classifier": one, "joint": two, "adapted": moved, "target": best}
        found = [kept(place, f"{k} accuracy", partial(accuracy_of, m, target)) for k, m in models.items()]
        title = f"{pair['source']} to {pair['target']}"
        rows.append([title, *[cell(f, percent="%") for f in found], pair.get("published", "")])
    protocol = (
        f"Both sets at {' x '.join(map(str, shape))} (sizes by antialiased bilinear interpolation; grey is "
        f"0.299 R + 0.587 G + 0.114 B, colour of grey the value in each channel); {how['steps']} updates on the "
        f"source, best held-out loss kept, {how['adapt_steps']} more on the target at learning rate "
        f"{settings.get('lr', LR):g} with the diffusion's loss alone, the last average kept: no label "
        f"of the target is read, and none chooses when to stop. Accuracy "
        f"on the target's test split, [ ] 95 % intervals, seed {seed}."
    )
    return {"protocol": protocol, "columns": COLUMNS, "rows": rows}


def _adapted(place: Path, target: Splits, steps: int, *, seed: int, progress: bool, **settings: Any) -> Model:
    """The joint model of the source after `steps` updates on the target; a run that was cut off goes on."""
    run = place / "adapted"
    if not folders.has_checkpoint(run):
        return adapt(place / "joint", target, out=run, steps=steps, seed=seed, samples=0, progress=progress,
                     **settings).trained.model  # fmt: skip
    runs.resume(run, steps=steps, data=target, samples=0, progress=progress)
    return runs.load(run)
