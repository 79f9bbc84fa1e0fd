"""`genrep evaluate`: measure the model of a run on the test split of its data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.evaluation.features import ExtractorName, extractor
from genrep.evaluation.measure import METRICS, Subject, measure
from genrep.evaluation.report import as_json
from genrep.interface import runs
from genrep.naming import choose
from genrep.training.settings import pick_device


def evaluate(
    run: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    data: runs.DataLike | None = None,
    samples: int = 2000,
    examples: int = 2000,
    features: ExtractorName = "auto",
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure the model of a run, write `metrics.json` into its folder, and return what that holds.

    Args:
        run: The folder.
        metrics: Which, by name; None: all that apply.
        data: Where the data are now; None: where config.yaml says.
        samples: How many are drawn for distances.
        examples: How many test examples are looked at, at most.
        features: In which distances are measured.
        seed: Of samples and the choice of test examples.
        device: auto takes an accelerator when there is one.
    """
    chosen = tuple(METRICS) if metrics is None else tuple(choose(name, METRICS, "metric") for name in metrics)
    folder = Path(run)
    model = runs.load(folder).to(pick_device(device))
    splits = runs.data_of(folder, data)
    subject = Subject(model, splits, extractor(features, splits), samples=samples, examples=examples, seed=seed)
    found = as_json(measure(subject, chosen))
    storage.write_json(folder / "metrics.json", found)
    return found
