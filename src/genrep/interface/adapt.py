"""`genrep adapt`: continue a model on data without labels, with the diffusion's loss alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from genrep import models, storage
from genrep.contracts import Unsupported
from genrep.data.prepared import unlabelled
from genrep.evaluation.classification import check_fits, classify
from genrep.evaluation.estimate import Estimate
from genrep.interface import runs
from genrep.training.settings import pick_device

LR = 1e-4  # as published


class Adapted(NamedTuple):
    """How training went, and the accuracy on the test split of the target before and after; None without labels."""

    trained: runs.Trained
    before: Estimate | None
    after: Estimate | None


def adapt(
    run: str | os.PathLike[str],
    data: runs.DataLike,
    *,
    out: str | os.PathLike[str],
    steps: int = 1000,
    lr: float = LR,
    device: str = "auto",
    samples: int = 64,
    progress: bool = True,
    **settings: Any,
) -> Adapted:
    """Continue a joint model on the target data with the diffusion's loss alone; labels of the target are never read.

    The classifier's head stays as it is, the encoder that it reads moves with the data (Deja et al., 2023, section
    6.6.5 of the thesis). `out` becomes a run folder like any other: `genrep resume` continues it bit for bit.

    Args:
        run: The folder of a joint_diffusion.
        data: The target, of the shape and levels that the model was made for.
        out: A new folder.
        steps: Updates.
        lr: Learning rate; that of a training from scratch moves the encoder away from what the head can read.
        device: auto takes an accelerator when there is one.
        samples: In the picture at the end; 0: no picture.
        progress: Show a bar on a terminal.
        **settings: Of training; the others are those that suit the model.

    Raises:
        ValueError: Data of another shape, channels, levels or number of classes.
        Unsupported: A model that does not generate and classify with one network.
    """
    source, folder = runs.load(run), Path(out)
    recipe = source.recipe
    if recipe is None or "weight" not in models.options(recipe.name) or "label" not in source.inference:
        raise Unsupported("Adaptation needs a model that generates and classifies: train joint_diffusion.")
    splits = runs.read(data)
    check_fits(source, splits)
    device = pick_device(device)
    source.to(device)
    before = classify(source, splits).accuracy
    model = models.build(recipe.name, source.data, **{**recipe.options, "weight": 0.0})
    storage.restore(model, storage.state(source))
    target = unlabelled(splits, source.data.classes)
    done = runs.train(
        model, target, steps=steps, out=folder, lr=lr, samples=samples, progress=progress, device=device, **settings
    )
    return Adapted(done, before, classify(model, splits).accuracy)
