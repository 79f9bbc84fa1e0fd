"""Checkpoints: one safetensors file each, written atomically, the last two kept, in case one is damaged."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from genrep import storage

KEPT = 2


def write(folder: Path, step: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Write the checkpoint of `step` and remove all but the last two."""
    path = folder / f"{step:08d}.safetensors"
    storage.save(path, tensors, about)
    for old in sorted(folder.glob("*.safetensors"))[:-KEPT]:
        old.unlink()
    return path


def newest(folder: Path) -> tuple[Path, storage.Stored]:
    """The newest checkpoint that can be read; a warning names each damaged one that is passed over."""
    found = sorted(folder.glob("*.safetensors"), reverse=True)
    damaged: list[str] = []
    for path in found:
        try:
            stored = storage.load(path)
        except ValueError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{' '.join(damaged)} Going back to {path.name}.", stacklevel=2)
        return path, stored
    if damaged:
        raise ValueError(f"No checkpoint in {folder} can be read. {' '.join(damaged)}")
    raise FileNotFoundError(f"There is no checkpoint in {folder}. Give a run folder that `genrep train` wrote.")
