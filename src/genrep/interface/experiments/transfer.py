"""Noise removed from data that the models have not seen (thesis table 5.7.2).

`models`: variants, trained on `data`. `targets`: names of sets; `hidden`: those of which no picture is kept (faces).
`beta_1`: the noise. All models get the same noised examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep.applications.transfer import denoise_foreign
from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.interface.pictures import transfer_picture
from genrep.interface.pieces import brief, cell, kept, trained
from genrep.interface.variants import sized, variants

NEEDED = ("data", "models", "targets")
KEYS = ("models", "targets", "hidden", "beta_1", "settings")
BUDGET = ("steps", "shape", "examples", "options", "settings")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    shape, beta = tuple(how.get("shape", ())), said.get("beta_1", 0.1)
    source = data_sets.load(said["data"], shape=shape)
    settings = {**said.get("settings", {}), **how.get("settings", {})}
    learn = partial(trained, splits=source, folder=folder, steps=how["steps"], seed=seed, progress=progress, **settings)
    models = {row.label: (row, learn(row)) for row in variants(sized(said["models"], how.get("options")))}
    rows, pictures = [], {}
    for name in said["targets"]:
        splits = source if name == said["data"] else data_sets.load(name, shape=source.spec.shape)
        for row, model in models.values():
            measure = partial(_errors, model, splits, beta, how["examples"], seed)
            found = kept(folder, f"{name} {row.label}", measure)
            told = [found["steps"], cell(found["mae"]), cell(found["ms_ssim"])]
            rows.append([name, row.label, *told, row.published])
        if name not in said.get("hidden", []):
            shown = {
                row.label: denoise_foreign(m, splits, beta, examples_=8, shown=8, seed=seed)
                for row, m in models.values()
            }
            transfer_picture(splits, shown, folder / f"{name}.png")
            pictures[f"{name}: originals, noised, {', '.join(shown)}"] = f"{name}.png"
    protocol = (
        f"Trained on {source.name} at {' x '.join(map(str, source.spec.shape))} with {how['steps']} updates "
        f"each, best held-out loss kept. The first {how['examples']} test examples of each set, brought to that "
        f"shape, get the same noise of variance {beta:g} (abar = {1 - beta:g}) for all models; MAE where the "
        f"range is [-1, 1], as the paper has it, and MS-SSIM with as many scales as the size allows. [ ]: 95 % "
        f"intervals. Seed {seed}."
    )
    columns = ["target", "model", "steps", "MAE", "MS-SSIM", "published"]
    return {"protocol": protocol, "columns": columns, "rows": rows, "pictures": pictures}


def _errors(model: Model, splits: Splits, beta: float, n: int, seed: int) -> dict[str, Any]:
    found = denoise_foreign(model, splits, beta, examples_=n, seed=seed)
    return {"steps": found.steps, "mae": brief(found.error), "ms_ssim": brief(found.similarity)}
