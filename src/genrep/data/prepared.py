"""Data sets made from others: with labels for some examples only, or brought to another shape of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.contracts import Data
from genrep.data.batches import InMemory
from genrep.data.binary import Redrawn
from genrep.data.splits import Splits, checked_seed
from genrep.data.text import windows

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_PART = 1024  # images resized at a time


def labelled(splits: Splits, share: float, seed: int = 0) -> Splits:
    """The same data with labels for a share of the training examples, the others' hidden (-1).

    Every class keeps equally many labels, round(share * N / classes), drawn at random from (seed); validation and test
    keep all. ValueError for a share outside (0, 1], for one that leaves a class without labels or asks for more than it
    has, and for data without labels.
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected labelled in (0, 1], the share of training examples with a label, got {share}.")
    if share == 1:
        return splits
    y = _labels(splits)
    each = round(share * len(y) / splits.spec.classes)
    if each < 1:
        raise ValueError(
            f"labelled={share:g} leaves less than one label for each of the {splits.spec.classes} classes of "
            f"{len(y)} examples: give at least {splits.spec.classes / len(y):.2g}."
        )
    random = np.random.RandomState(checked_seed(seed))
    hidden = torch.full_like(y, -1)
    for c in range(splits.spec.classes):
        mine = np.flatnonzero((y == c).numpy())
        if len(mine) < each:
            raise ValueError(f"Class {c} has {len(mine)} examples, labelled={share:g} asks for {each} of every class.")
        hidden[random.permutation(mine)[:each]] = c
    counts = {**splits.about.get("class_counts", {}), "train": [each] * splits.spec.classes}
    note = f"labels: {each} of every class of the training split, drawn at random (seed {seed}); the others are hidden."
    return _with_labels(splits, hidden, note, counts)


def unlabelled(splits: Splits, classes: int = 0) -> Splits:
    """The same data with all labels of the training split hidden; validation and test keep theirs.

    Of data without labels all become unknown, of so many `classes`.
    """
    if classes and not (splits.spec.classes or splits.spec.condition):
        spec, parts = splits.spec._replace(classes=classes), {}
        for name in ("train", "validation", "test"):
            data = _memory(getattr(splits, name))
            parts[name] = InMemory(data.x, torch.full((len(data),), -1), spec)
        return splits._replace(**parts)
    counts = {**splits.about.get("class_counts", {}), "train": [0] * splits.spec.classes}
    return _with_labels(splits, torch.full_like(_labels(splits), -1), "labels of the training split: hidden.", counts)


def _labels(splits: Splits) -> Tensor:
    if not splits.spec.classes:
        raise ValueError(f"{splits.name} has no labels that could be hidden: leave labelled out.")
    return _memory(splits.train).y  # pyright: ignore[reportReturnType]


def _memory(data: Data) -> InMemory:
    if not isinstance(data, InMemory):
        raise ValueError("This is for data in memory; this set is read on access: raise memory_limit=.")
    return data


def _with_labels(splits: Splits, y: Tensor, note: str, counts: dict[str, list[int]]) -> Splits:
    train = _memory(splits.train)
    about = {**splits.about, "split": [*splits.about.get("split", ()), note], "class_counts": counts}
    about["unlabelled"] = {**splits.about.get("unlabelled", {}), "train": int((y < 0).sum())}
    return splits._replace(train=train.relabelled(y, splits.spec), about=about)


def reshaped(splits: Splits, shape: Sequence[int]) -> Splits:
    """Images brought to `shape` (C, H, W), levels kept; text cut into windows of another length, shape (L,).

    Sizes by area-aware (antialiased) bilinear interpolation, rounded to the nearest level. Colour to grey: 0.299 R +
    0.587 G + 0.114 B. Grey to colour: the value in each channel. ValueError for data that are no images over levels,
    and for other numbers of channels.
    """
    spec, wanted = splits.spec, tuple(shape)
    if wanted == spec.shape:
        return splits
    if "characters" in splits.about:
        return _rewindowed(splits, wanted)
    if len(spec.shape) != 3 or spec.levels is None:
        raise ValueError(f"shape= is for images over levels and for text; {splits.name} has shape {spec.shape}.")
    if len(wanted) != 3 or min(wanted) < 1 or (wanted[0] != spec.shape[0] and {wanted[0], spec.shape[0]} != {1, 3}):
        raise ValueError(
            f"Expected shape as C,H,W with C of {spec.shape[0]}, or grey (1) and colour (3) for each other, got "
            f"{','.join(map(str, wanted))}."
        )
    new = spec._replace(shape=wanted)
    about: dict[str, Any] = {**splits.about}
    about["inferred"] = [*splits.about.get("inferred", ()), f"from {_text(spec.shape)} to {_text(wanted)}"]
    parts = {}
    for name in ("train", "validation", "test"):
        data = _memory(getattr(splits, name))
        if isinstance(data, Redrawn):
            raise ValueError(f"{splits.name} is drawn pixel by pixel in training, at its own size: leave shape= out.")
        x = torch.cat([_image(part, wanted, spec.levels) for part in data.x.split(_PART)])
        parts[name] = InMemory(x, data.y, new)
    return splits._replace(about=about, **parts)


def _rewindowed(splits: Splits, shape: tuple[int, ...]) -> Splits:
    least = min(_memory(data).x.numel() for data in (splits.train, splits.validation, splits.test))
    if len(shape) != 1 or not 1 <= shape[0] <= least:
        raise ValueError(f"Expected shape as one number of characters of at most {least}, got {_text(shape)}.")
    parts, new = {}, splits.spec._replace(shape=shape)
    for name in ("train", "validation", "test"):
        codes = _memory(getattr(splits, name)).x.numpy().flatten()
        parts[name] = InMemory(torch.from_numpy(windows(codes, shape[0])), None, new)
    counts = {name: len(data) for name, data in parts.items()}
    return splits._replace(about={**splits.about, "counts": counts}, **parts)


def _image(x: Tensor, shape: tuple[int, ...], levels: int) -> Tensor:
    image = x.float()
    if shape[0] < x.shape[1]:
        image = (image * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if x.shape[2:] != shape[1:]:
        image = F.interpolate(image, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return image.round().clamp(0, levels - 1).to(x.dtype).expand(-1, shape[0], -1, -1).contiguous()


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
