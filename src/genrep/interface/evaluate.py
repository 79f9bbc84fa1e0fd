"""`genrep evaluate`: measure the model of a run on the test split of its data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor, encoder
from genrep.evaluation.measure import METRICS, USUAL, Subject, measure, null
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
    features: str | Extractor = "auto",
    reference: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Measure the model of a run, write `metrics.json` into its folder, and return what that holds.

    Args:
        run: The folder.
        metrics: Which, by name; None: all that apply and do not take minutes.
        data: Where the data are now; None: where config.yaml says.
        samples: How many are drawn for distances.
        examples: How many test examples are looked at, at most.
        features: In which distances are measured: auto, lenet, pca:64, inception:FILE (see `extractor`), or one made.
        reference: The folder of another run, in whose representation criticism compares; None: in `features`.
        seed: Of samples and the choice of test examples.
        device: auto takes an accelerator when there is one.
        **options: Of the metrics, as in `genrep.evaluation.measure.options_of(name)`: method="importance", draws=500.
    """
    chosen = USUAL if metrics is None else tuple(choose(name, METRICS, "metric") for name in metrics)
    folder = Path(run)
    model = runs.load(folder).to(pick_device(device))
    splits = runs.data_of(folder, data)
    other = None if reference is None else encoder(runs.load(Path(reference)).to(model.device))
    counts = {"samples": samples, "examples": examples, "seed": seed}
    subject = Subject(model, splits, extractor(features, splits, model), reference=other, **counts)
    measured = measure(subject, chosen, **options)
    if "frechet" in measured:
        measured["frechet_null"] = _null_check(subject, examples)
    found = as_json(measured)
    storage.write_json(folder / "metrics.json", found)
    return found


def _null_check(subject: Subject, examples: int) -> Estimate:
    """Half of the test data against the other; a warning where zero lies outside its interval."""
    check = null(subject.splits, subject.extractor, examples=examples, seed=subject.seed)
    if not check.passed:
        low, high, _ = check.estimate.interval
        warnings.warn(
            f"Half of the test data is at Fréchet distance {check.estimate.value:.3g} [{low:.3g}, {high:.3g}] from the "
            "other, where zero should lie inside: do not believe distances in these features at this sample size.",
            stacklevel=2,
        )
    return check.estimate
