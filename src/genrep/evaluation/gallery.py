"""What a report shows of one model: pictures beside its numbers, and the curve of its spectrum."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep import data as data_sets
from genrep.contracts import Unsupported, evaluating, seeded
from genrep.evaluation import figures
from genrep.evaluation.embedding import planar
from genrep.evaluation.features import examples
from genrep.evaluation.memorisation import nearest
from genrep.evaluation.report import SAME_FOR_ALL
from genrep.evaluation.representation import represent, require_own
from genrep.evaluation.spectrum import radial_power
from genrep.evaluation.subject import TRAIN, Subject

SAMPLES = "samples"
RECONSTRUCTIONS = "test examples, each before its reconstruction"
NEIGHBOURS = "samples that lie nearest to a training image, each before it"
REPRESENTATION = "representation of test examples"
TABLE = "samples and test data"
_SHOWN = 64  # samples in a picture
_PAIRS = 24  # of an image and what it is compared with
_POINTS = 1000  # of a representation


class Gallery(NamedTuple):
    pictures: dict[str, str]  # title -> PNG file, relative to the folder of the report
    captions: dict[str, str]  # title -> what else is to be said of it
    spectrum: dict[str, list[float]]  # mean radial power of "real" and "generated", or empty


def gallery(s: Subject, folder: Path, place: str, metrics: Collection[str]) -> Gallery:
    """Draw into folder / place: samples, and what belongs to the metrics that were asked for."""
    pictures: dict[str, str] = {}
    captions: dict[str, str] = {}
    spec = s.splits.spec
    images = len(spec.shape) == 3

    def draw(title: str, file: str, x: Tensor) -> None:
        data_sets.picture(x, spec, columns=8).save(folder / place / file)
        pictures[title] = f"{place}/{file}"

    if not images:
        names = s.splits.about.get("columns") or [f"column {i}" for i in range(spec.size)]
        figure = figures.histograms(s.real[0].numpy(), s.generated.numpy(), names)
        figure.savefig(folder / place / "samples.png", dpi=120)
        pictures[TABLE] = f"{place}/samples.png"
    else:
        draw(SAMPLES, "samples.png", s.generated[:_SHOWN])
    if images and "reconstruct" in s.model.capabilities:
        draw(RECONSTRUCTIONS, "reconstructions.png", _reconstructed(s))
    if images and "memorisation" in metrics:
        for title, file, k in ((NEIGHBOURS, "nearest.png", 1), (SAME_FOR_ALL, "nearest_test.png", 0)):
            draw(title, file, _nearest(s, s.generated if k else s.real[0], s.features[k]))
    if "representation" in metrics and (found := _represented(s, folder / place / "representation.png")):
        pictures[REPRESENTATION], captions[REPRESENTATION] = f"{place}/representation.png", found
    return Gallery(pictures, captions, _spectrum(s) if images and "spectrum" in metrics else {})


def _beside(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], 1).flatten(0, 1)


def _reconstructed(s: Subject) -> Tensor:
    x = s.real[0][:_PAIRS]
    y = s.conditions(len(x))
    with torch.no_grad(), evaluating(s.model), seeded(s.seed):
        return _beside(x, s.model.reconstruct(x, condition=y).cpu())


def _nearest(s: Subject, x: Tensor, features: Tensor) -> Tensor:
    """The images with the least distances to the training images that memorisation looks at, each before its own."""
    found = nearest(features, s.train_features)
    closest = found.distance.argsort()[:_PAIRS]
    return _beside(x[closest], examples(s.splits.train, TRAIN)[0][found.row[closest]])


def _represented(s: Subject, path: Path) -> str | None:
    """Draws the plane, coloured by class or by the first condition; how it was made, or None without a code."""
    try:
        require_own(s)
    except Unsupported:
        return None  # the metric itself gives the reason
    x, y = s.real[0][:_POINTS], s.real[1]
    code = planar(represent(s, x, None if y is None else y[:_POINTS]), seed=s.seed)
    names: Any = s.splits.about.get("class_names") or [str(i) for i in range(s.splits.spec.classes)]
    shown = None if y is None else y[:_POINTS] if y.ndim == 1 else y[:_POINTS, 0]
    figures.plane(code.points, None if shown is None else shown.numpy(), names).savefig(path, dpi=130)
    return code.how


def _spectrum(s: Subject) -> dict[str, list[float]]:
    levels = s.splits.spec.levels
    scale = 1.0 if levels is None else 1.0 / (levels - 1)
    sets = {"real": s.real[0], "generated": s.generated}
    return {name: radial_power(x.double() * scale).mean(0).tolist() for name, x in sets.items()}
