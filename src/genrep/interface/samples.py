"""Samples on disk: a grid or a folder of PNG files, `.npz`, or text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genrep import data as data_sets
from genrep import storage
from genrep.contracts import DataSpec, Model
from genrep.data.pictures import to_bytes
from genrep.naming import choose


def save_samples(
    x: Tensor,
    spec: DataSpec,
    path: str | os.PathLike[str],
    *,
    condition: Tensor | None = None,
    columns: Sequence[str] = (),
    characters: list[str] | None = None,
) -> str:
    """Write examples x (N, *shape) as the data set holds them; returns a sentence on what was written.

    A path ending in .png becomes one picture: a grid of images, or histograms of the columns of a table. One ending in
    .npz holds `x`, and the condition as `y`; one in .txt examples of text, whose `characters` are given. Any other is a
    new folder of PNG files, one for each image.
    """
    path, n = Path(path), len(x)
    check_path(path, spec, text=characters is not None)
    x = x.detach().cpu()
    if characters is not None and path.suffix == ".txt":
        storage.write_text(path, "\n---\n".join(data_sets.as_text(x, characters)) + "\n")
        return f"{n} samples as text: {path}"
    if path.suffix == ".png":
        if len(spec.shape) == 3:
            with storage.atomic(path) as temporary:
                data_sets.picture(x, spec).save(temporary, format="PNG")
        else:
            data_sets.contact_sheet(data_sets.InMemory(x, None, spec), path, n=n, columns=columns)
        return f"{n} samples as a picture: {path}"
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {"x": x.numpy()} | ({} if condition is None else {"y": condition.cpu().numpy()})
        with storage.atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return f"{n} samples as arrays {', '.join(f'{k} {v.shape} {v.dtype}' for k, v in arrays.items())}: {path}"
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(to_bytes(x, spec).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path / f"{i:05d}.png")
    return f"{n} samples as PNG files: {path}/"


def check_path(path: Path, spec: DataSpec, *, text: bool = False) -> None:
    """A ValueError for a path that `save_samples` could not write to, before anything is drawn."""
    if text and path.suffix not in (".txt", ".npz"):
        raise ValueError(f"Expected a path ending in .txt or .npz for text, got {path}.")
    if not text and path.suffix not in ("", ".png", ".npz"):
        raise ValueError(f"Expected a path ending in .png or .npz, or a folder, got {path}.")
    if path.suffix == "" and len(spec.shape) != 3:
        raise ValueError(f"PNG files are for images, these data are a table: choose a path ending in .npz, not {path}.")
    if path.suffix == "" and path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} exists and is not empty: choose another --out.")
    if path.suffix and path.is_dir():
        raise ValueError(f"{path} is a folder: choose another --out.")
    if path.suffix == "" and path.is_file():
        raise ValueError(f"{path} is a file: choose another --out, a folder.")


def parse_condition(text: str | None, n: int, model: Model, about: Mapping[str, Any]) -> Tensor | None:
    """The conditions of n samples from what the user wrote.

    Labels, by number or name and separated by commas, are taken in turn; none means all classes in turn. A condition
    vector is in the user's units and stands for all samples.
    """
    spec = model.data
    if not model.generative.reads_y:
        if text is not None and not model.generative.accepts_y:
            model.condition(text, n)  # raises: it reads none
        if text is None:
            return None
    if spec.classes:
        names = about.get("class_names", ())
        labels = range(spec.classes) if text is None else [class_of(part, spec, names) for part in text.split(",")]
        return torch.tensor(labels)[torch.arange(n) % len(labels)]
    columns = about.get("condition", [f"condition {i}" for i in range(spec.condition)])
    expected = f"--condition with {spec.condition} numbers: {', '.join(columns)}"
    if text is None:
        raise ValueError(f"This model is conditional: give {expected}.")
    try:
        values = torch.tensor([float(part) for part in text.split(",")])
    except ValueError as error:
        raise ValueError(f"Expected {expected}; got {text!r}.") from error
    if len(values) != spec.condition or not values.isfinite().all():
        raise ValueError(f"Expected {expected}; got {text!r}.")
    if "condition_mean" in about:
        values = (values - torch.tensor(about["condition_mean"])) / torch.tensor(about["condition_std"])
    return values.expand(n, -1)


def class_of(text: str, spec: DataSpec, names: Sequence[str]) -> int:
    """The label that a number or a name means; a ValueError lists the classes."""
    text = text.strip()
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < spec.classes:
        return int(text)
    valid = list(names) or [str(i) for i in range(spec.classes)]
    choose(text, valid, "class")
    return valid.index(text)
