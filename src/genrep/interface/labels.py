"""Whether data have the labels that a model is to learn."""

from __future__ import annotations

from genrep.contracts import Model
from genrep.data.splits import Splits


def check_labels(model: Model, splits: Splits) -> None:
    """A ValueError where a classifier is to learn and no example of the training split has a label."""
    stages = range(len(model.objectives))
    learns = any(name.startswith("inference.label") for i in stages for name in model.paths(i, "model"))
    counts = splits.about.get("class_counts", {}).get("train")
    if learns and splits.spec.classes and counts is not None and not any(counts):
        raise ValueError(
            f"No example of the training split of {splits.name} has a label, and the classifier needs some: give "
            "labels, or set weight=0 where the model has that option."
        )
