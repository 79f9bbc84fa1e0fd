"""Train one diffusion model and analyse its steps: `model`, `options`, `analyses` of `genrep analyse`, `foreign` sets.

A budget says `steps`, and may say `options` and `settings` of the training, `samples`, `examples`, and `evaluations`:
the numbers of network evaluations at which samplers are compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrep.interface import folders, runs
from genrep.interface.analyses import ANALYSES, EVALUATIONS, Study, written
from genrep.naming import choose

NEEDED = ("data", "model", "analyses")
KEYS = ("model", "options", "analyses", "foreign")
BUDGET = ("steps", "options", "settings", "samples", "examples", "evaluations")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    """One table of all analyses: a row is named by its first column, the others stand in its text."""
    names = [choose(name, ANALYSES, "analysis") for name in said["analyses"]]
    options = {**said.get("options", {}), **how.get("options", {})}
    place, settings = folder / "run", how.get("settings", {})
    if folders.has_checkpoint(place):
        runs.resume(place, steps=how["steps"], samples=0, progress=progress)
    else:
        if place.exists():  # cut off before its first checkpoint
            shutil.rmtree(place)
        runs.fit(
            said["model"], said["data"], steps=how["steps"], out=place, options=options, seed=seed, samples=0,
            progress=progress, **settings,
        )  # fmt: skip
    study = Study(
        place,
        foreign=said.get("foreign", ()),
        examples=how.get("examples", 500),
        samples=how.get("samples", 1000),
        evaluations=how.get("evaluations", EVALUATIONS),
        seed=seed,
        device="auto",
    )
    rows, notes, pictures = [], [], {}
    for name in names:
        kept = folder / f"{name}.json"
        found = json.loads(kept.read_text(encoding="utf8")) if kept.exists() else written(study, name, folder)
        titles = found["columns"]
        for row in found["rows"]:
            cells = [f"{title} {value}" for title, value in zip(titles[1:], row[1:], strict=True)]
            rows.append([name, f"{titles[0]} {row[0]}", "; ".join(cells)])
        notes += found["notes"]
        pictures[name] = found["picture"]
    chosen = ", ".join(f"{k} {v}" for k, v in {**options, **settings}.items()) or "default options"
    protocol = (
        f"{said['model']} on {said['data']}, {how['steps']} updates, {chosen}; averaged weights. At most {study.count} "
        f"test examples of each set, {study.samples} samples for each distance. docs/diffusion.md explains each."
    )
    columns = ["analysis", "at", "measured"]
    return {"protocol": protocol, "columns": columns, "rows": rows, "notes": notes, "pictures": pictures}
