"""What the codes of autoencoders are good for: probes of a label, and DCI where the data's factors are known.

`models` and `settings` as in `compare`. `read`: probe (linear and nearest-neighbour accuracy of labels), or dci (on the
set `shapes`). A budget says `steps`, `train` and `test`, the examples that are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrep import data as data_sets
from genrep.contracts import Model, evaluating, seeded
from genrep.data.shapes import FACTORS
from genrep.data.splits import Splits
from genrep.evaluation.disentanglement import dci
from genrep.evaluation.features import examples
from genrep.evaluation.probe import probe
from genrep.interface.pieces import kept, pm, rows_of, trained
from genrep.naming import choose

NEEDED = ("data", "models", "read")
KEYS = ("models", "settings", "label", "read")
BUDGET = ("steps", "train", "test")
_COLUMNS = {
    "probe": ("linear", "nearest neighbours"),
    "dci": ("disentanglement", "completeness", "informativeness"),
}


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows, splits = rows_of(said)
    read = choose(said["read"], _COLUMNS, "way of reading codes")
    if read == "dci" and said["data"] != "shapes":
        raise ValueError(f"read: dci needs the data set shapes, whose factors are known; got {said['data']}.")
    lines = []
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        found = kept(folder, row.label, lambda m=model: _read(read, m, splits, how, seed))
        lines.append([row.label, *(pm(*found[k], digits=3) for k in _COLUMNS[read])])
    what = {
        "probe": "accuracy of a logistic regression and of nearest neighbours on the codes",
        "dci": "disentanglement, completeness and informativeness of the codes (the mean of q), six factors",
    }[read]
    return {
        "protocol": f"{how['steps']} updates a row without labels; then {what}, ± standard error.",
        "columns": ["row", *_COLUMNS[read]],
        "rows": lines,
    }


def _codes(model: Model, x: Tensor, seed: int) -> Tensor:
    with torch.no_grad(), evaluating(model), seeded(seed):
        return torch.cat([model.encode(part).flatten(1).cpu() for part in x.split(256)])


def _read(read: str, model: Model, splits: Splits, how: Mapping[str, Any], seed: int) -> dict[str, Any]:
    x, y = examples(splits.test, how.get("test", 2000))
    codes = _codes(model, x, seed)
    if read == "dci":
        known = data_sets.load("shapes", condition=list(FACTORS))
        std, mean = (torch.tensor(known.about[f"condition_{k}"]) for k in ("std", "mean"))
        values = examples(known.test, how.get("test", 2000))[1]
        assert values is not None
        found = dci(codes, (values.cpu() * std + mean).round().long(), seed=seed)._asdict()
        return {k: [v.value, v.standard_error] for k, v in found.items()}
    train, target = examples(splits.train, how.get("train", 5000))
    assert target is not None
    assert y is not None
    a = _codes(model, train, seed)
    readers = {"linear": "linear", "nearest neighbours": "neighbours"}
    estimates = {k: probe(a, target, codes, y, reader=r, seed=seed) for k, r in readers.items()}  # pyright: ignore[reportArgumentType]
    return {k: [v.value, v.standard_error] for k, v in estimates.items()}
