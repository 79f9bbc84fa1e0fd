"""Holes in the latent spaces of several models: prior mass where no data are encoded.

`models` and `settings` as in `compare`. A budget says `steps` and `draws`, of prior and codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.evaluation.holes import find_holes
from genrep.interface.latent import holes_figure
from genrep.interface.pieces import kept, pm, rows_of, trained

NEEDED = ("data", "models")
KEYS = ("models", "settings", "label")
BUDGET = ("steps", "draws")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows, splits = rows_of(said)
    lines, pictures, draws = [], {}, how.get("draws", 5000)
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        path = folder / f"{row.folder}.png"
        found = kept(folder, row.label, lambda m=model, p=path: _measured(m, splits, draws, seed, p))
        lines.append([row.label, *(pm(*found[k], digits=3) for k in ("mass", "region", "divergence"))])
        pictures[row.label] = path.name
    return {
        "protocol": f"{how['steps']} updates a row; codes of at most {draws} test examples against as many draws of "
        "the prior. Hole mass: p(R) - q(R) for the region R where a classifier puts q / p below 0.1, counted on draws "
        "that it has not seen; ± the error of the counts. Jensen-Shannon: the classifier's lower bound, nats, at most "
        "0.693.",
        "columns": ["row", "hole mass", "prior below 0.1", "Jensen-Shannon"],
        "rows": lines,
        "pictures": pictures,
    }


def _measured(model: Model, splits: Splits, draws: int, seed: int, path: Path) -> dict[str, Any]:
    found, latents = find_holes(model, splits, n=draws, seed=seed)
    holes_figure(model, found, latents, path)
    return {k: [getattr(found, k).value, getattr(found, k).standard_error] for k in ("mass", "region", "divergence")}
