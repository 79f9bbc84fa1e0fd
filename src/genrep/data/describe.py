"""What a data set is: in numbers, and in one picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Data
from genrep.data.batches import InMemory
from genrep.data.pictures import picture
from genrep.data.splits import SPLITS, Splits
from genrep.storage import atomic

_MOST_PANELS = 36
_MOST_ROWS = 10_000


def describe(splits: Splits) -> dict[str, Any]:
    """The set in JSON: shape, levels, range, classes and their counts per split, and all that `about` says."""
    spec, about = splits.spec, splits.about
    found: dict[str, Any] = {
        "name": splits.name,
        "shape": list(spec.shape),
        "levels": spec.levels,
        "range": _range(splits.train),
        "counts": {split: len(getattr(splits, split)) for split in SPLITS},
        "classes": spec.classes,
        "condition": spec.condition,
    }
    if spec.levels is None:
        found |= {"mean": list(spec.mean), "std": list(spec.std)}
    if spec.classes:
        names = about.get("class_names", [str(i) for i in range(spec.classes)])
        found["class_counts"] = {s: dict(zip(names, n, strict=True)) for s, n in about["class_counts"].items()}
    if "characters" in about:
        about = {**about, "characters": repr("".join(about["characters"]))}
    return found | {k: v for k, v in about.items() if k not in ("counts", "class_counts", "condition", "origin")}


def _range(data: Data) -> list[float] | None:
    """Smallest and largest value of the training split; None where that would mean reading every file."""
    if not isinstance(data, InMemory):
        return None
    return [data.x.min().item(), data.x.max().item()]


def contact_sheet(
    data: Data, path: str | os.PathLike[str], n: int = 64, seed: int = 0, columns: Sequence[str] = ()
) -> None:
    """Write a PNG: n random images, ordered by class where there are labels, or a histogram for each column of a table.

    `columns`: names of the columns of a table.
    """
    if n < 1:
        raise ValueError(f"Expected n >= 1 images, got {n}.")
    image = len(data.spec.shape) == 3
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    batch = data[order[: n if image else _MOST_ROWS]]
    if not image:
        _histograms(batch.x.flatten(1), columns, Path(path))
        return
    x = batch.x
    if batch.y is not None and batch.y.ndim == 1:
        x = x[batch.y.argsort(stable=True)]
    with atomic(path) as temporary:
        picture(x, data.spec).save(temporary, format="PNG")


def _histograms(x: Tensor, names: Sequence[str], path: Path) -> None:
    from matplotlib.figure import Figure  # only here: tables alone need it

    shown = min(x.shape[1], _MOST_PANELS)
    names = names or [f"column {i}" for i in range(x.shape[1])]
    wide = min(4, shown)
    tall = math.ceil(shown / wide)
    figure = Figure(figsize=(3 * wide, 2.2 * tall))
    panels = figure.subplots(tall, wide, squeeze=False).flatten()
    width, height = figure.get_size_inches()  # margins in inches leave room for numbers and titles
    figure.subplots_adjust(0.5 / width, 0.3 / height, 1 - 0.15 / width, 1 - 0.4 / height, wspace=0.25, hspace=0.4)
    for i, panel in enumerate(panels):
        if i >= shown:
            panel.set_axis_off()
            continue
        values = x[:, i].double().cpu().numpy()
        panel.stairs(*np.histogram(values, bins=40), fill=True, color="#3b6ea5")
        panel.set_title(names[i], fontsize=9)
        panel.tick_params(labelsize=7)
        panel.locator_params(axis="x", nbins=4)
    if shown < x.shape[1]:
        figure.suptitle(f"The first {shown} of {x.shape[1]} columns", fontsize=9, y=1 - 0.03 / height)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
