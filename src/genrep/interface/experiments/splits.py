"""Quality of a diffusion model whose last steps are one denoising pass, against where that begins (figure 5.7.2).

`model`: a variant. `betas`: the noise at which the pass begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrep import data as data_sets
from genrep.applications.splitting import quality_of_splits
from genrep.evaluation.extractors import extractor
from genrep.interface.pictures import split_figure
from genrep.interface.pieces import brief, cell, trained

NEEDED = ("data", "model", "betas")
KEYS = ("model", "betas", "settings")
BUDGET = ("steps", "samples", "examples", "features", "options", "settings")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    splits = data_sets.load(said["data"])
    settings = {**said.get("settings", {}), **how.get("settings", {})}
    model = trained(
        {**how.get("options", {}), **said["model"]},
        splits,
        folder,
        steps=how["steps"],
        seed=seed,
        progress=progress,
        **settings,
    )
    features = extractor(how.get("features", "auto"), splits)
    found = quality_of_splits(model, splits, features, said["betas"], samples=how["samples"],
                              examples_=how["examples"], seed=seed)  # fmt: skip
    split_figure(found, folder / "splits.png")
    rows = [
        [f"{r.beta_1:g}" if r.beta_1 else "whole chain", r.replaced, f"{r.log_snr:.2f}" if r.beta_1 else "",
         *[cell(brief(e)) for e in (r.frechet, r.precision, r.recall)]]
        for r in found
    ]  # fmt: skip
    protocol = (
        f"{splits.name}, {how['steps']} updates, best held-out loss kept; {how['samples']} samples, every step "
        f"drawn, from the same noise in all rows, against {how['examples']} test examples, features "
        f"{features.name} {features.hash}, seed {seed}. [ ]: 95 % intervals."
    )
    columns = ["beta_1", "steps replaced", "log-SNR", "Fréchet distance", "precision", "recall"]
    return {"protocol": protocol, "columns": columns, "rows": rows, "pictures": {"quality of the split": "splits.png"}}
