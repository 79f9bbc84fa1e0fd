"""Densities of tables: models and the flows of other libraries, trained alike, in nats per row of the test split.

`data` is a list of tables; `models` a list of names, of mappings {label, model, and options}, or of mappings {label,
rival: a name of `genrep.interface.rivals`, and layers, width, depth}. `pairs` is a list of [label, label]: their
difference is taken row by row of the test split. A budget says `steps`, and may say `batch`, `lr` and `examples` of the
test split. A rival that is not installed is left out, and a note says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrep import data as data_sets
from genrep import storage
from genrep.contracts import Model, evaluating, seeded
from genrep.data.splits import Splits
from genrep.evaluation.features import examples
from genrep.interface import runs
from genrep.interface.rivals import rival
from genrep.interface.variants import variants
from genrep.naming import file_name

NEEDED = ("data", "models")
KEYS = ("models", "pairs")
BUDGET = ("steps", "batch", "lr", "examples")
_AT_A_TIME = 500


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    """Rows of data, model, parameters and nats with their standard error; notes on pairs."""
    sets = [said["data"]] if isinstance(said["data"], str) else list(said["data"])
    rows, notes = [], []
    for name in sets:
        splits, found = data_sets.load(name), {}
        for one in said["models"]:
            label = label_of(one)
            place = folder / file_name(splits.name) / file_name(label)
            try:
                model = built(one, splits, seed)
            except ModuleNotFoundError as error:
                notes.append(f"{label} was left out: {error.name} is not installed (extra `bench`).")
                continue
            nats = measured(model, splits, place, how, seed=seed, progress=progress)
            found[label] = nats
            parameters = sum(p.numel() for p in model.parameters())
            rows.append([splits.name, label, f"{parameters:,}", _with_error(nats)])
        notes += [_pair(splits.name, a, b, found) for a, b in said.get("pairs", []) if {a, b} <= found.keys()]
    return {
        "protocol": f"{how['steps']} updates of AdamW at one rate for all rows, the weights of the best validation "
        f"loss; nats per row of the test split (at most {how.get('examples', 'all')} rows) with their standard error; "
        "higher is better.",
        "columns": ["data", "model", "parameters", "nats"],
        "rows": rows,
        "notes": list(dict.fromkeys(notes)),
    }


def label_of(said: str | Mapping[str, Any]) -> str:
    if isinstance(said, str):
        return said
    return str(said.get("label", said.get("model", said.get("rival"))))


def built(said: str | Mapping[str, Any], splits: Splits, seed: int) -> Model:
    """The model of a row, for this data."""
    if isinstance(said, Mapping) and "rival" in said:
        options = {k: v for k, v in said.items() if k not in ("label", "rival")}
        with seeded(seed):
            return rival(said["rival"], splits.spec, **options)
    return variants([said])[0].build(splits.spec, seed)


def trained(model: Model, splits: Splits, place: Path, how: Mapping[str, Any], *, seed: int, progress: bool) -> Model:
    """The model of a run folder, trained to the end or from where it was cut."""
    steps = how["steps"]
    if any((place / "checkpoints").glob("*.safetensors")):
        return runs.resume(place, steps=steps, data=splits, model=model, samples=0, progress=progress)
    if place.exists():
        shutil.rmtree(place)
    given = {k: how[k] for k in ("batch", "lr") if k in how}
    settings = {"validate_every": max(1, steps // 20), "keep_best": True, "precision": "float32", **given}
    return runs.fit(model, splits, steps=steps, out=place, seed=seed, samples=0, progress=progress, **settings)


def measured(
    model: Model, splits: Splits, place: Path, how: Mapping[str, Any], *, seed: int, progress: bool
) -> np.ndarray:
    """Nats of test rows, which a file beside the run keeps."""
    kept = place / "nats.json"
    if kept.exists():
        return np.array(json.loads(kept.read_text(encoding="utf8")))
    model = trained(model, splits, place, how, seed=seed, progress=progress)
    x, _ = examples(splits.test, how.get("examples", len(splits.test)))
    with torch.no_grad(), evaluating(model), seeded(seed):
        values = torch.cat([model.log_likelihood(part).value.cpu() for part in x.split(_AT_A_TIME)]).double()
    storage.write_json(kept, values.tolist())
    return values.numpy()


def _with_error(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def _pair(data: str, first: str, second: str, found: Mapping[str, Sequence[float]]) -> str:
    between = np.asarray(found[first]) - np.asarray(found[second])
    error = between.std(ddof=1) / len(between) ** 0.5
    word = "above" if between.mean() > 1.96 * error else "below" if between.mean() < -1.96 * error else "not apart from"
    return f"{data}: {first} is {word} {second}, by {between.mean():.3f} ± {error:.3f} nats, paired over test rows."
