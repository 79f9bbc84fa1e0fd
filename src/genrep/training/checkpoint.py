"""Checkpoints: one safetensors file each, written atomically, the last two kept, in case one is damaged.

Where several processes train, each writes a file of its own beside it, with the buffers that belong to its rank.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from genrep import storage
from genrep.contracts import DataSpec, Recipe
from genrep.training import ranks

KEPT = 2
_LARGEST = 2**24  # values in one example: a header can claim any shape, and a model is built for it
_PARTS = ("model", "ema", "power", "optimiser", "window", "best")
_KINDS: dict[str, tuple[type, ...]] = {
    "step": (int,), "stage": (int,), "settings": (dict,), "mode": (dict,), "window": (dict,), "misses": (int,),
    "best": (int, float, type(None)), "recipe": (dict, type(None)), "data": (dict,), "ranks": (int,),
}  # fmt: skip


def write(folder: Path, step: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Write the checkpoint of `step` and remove all but the last two."""
    path = folder / f"{step:08d}.safetensors"
    storage.save(path, tensors, about)
    for old in _found(folder)[:-KEPT]:
        old.unlink()
    _remove_orphans(folder)
    return path


def write_own(folder: Path, step: int, rank: int, buffers: dict[str, Tensor]) -> None:
    """Write what belongs to one rank, before the checkpoint of that step; nothing where there is nothing."""
    if buffers:
        storage.save(_own(folder, step, rank), buffers, {"step": step, "rank": rank})


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written; for the run that has the folder to itself."""
    storage.sweep(folder)
    _remove_orphans(folder)


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first; not the files of single ranks."""
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit())


def _own(folder: Path, step: int, rank: int) -> Path:
    return folder / f"{step:08d}.rank-{rank}.safetensors"


def _remove_orphans(folder: Path) -> None:
    """Files of ranks whose checkpoint is gone, or was never written."""
    whole = {path.stem for path in _found(folder)}
    for path in folder.glob("*.rank-*.safetensors"):
        if path.name.split(".")[0] not in whole:
            path.unlink()


def read(folder: Path, step: int) -> tuple[Path, storage.Stored]:
    """The checkpoint of that step, as this rank continues from it."""
    path = folder / f"{step:08d}.safetensors"
    stored = _load(path)
    if stored.about["ranks"] != ranks.world():
        raise ValueError(
            f"{path} was written by {stored.about['ranks']} processes: continue it with as many, not {ranks.world()}."
        )
    names = {name for name in stored.tensors if name.startswith("model/")}
    if ranks.world() > 1 and (own := _own(folder, step, ranks.rank())).exists():
        tensors = storage.load(own).tensors
        if not tensors.keys() <= names:
            raise ValueError(f"{own} does not belong to {path.name}: unexpected {sorted(tensors.keys() - names)[:5]}.")
        stored.tensors.update(tensors)
    return path, stored


def newest(folder: Path) -> tuple[Path, storage.Stored]:
    """The newest checkpoint that can be read; a warning names each damaged one that is passed over."""
    damaged: list[str] = []
    for path in reversed(_found(folder)):
        try:
            stored = _load(path)
        except (ValueError, FileNotFoundError) as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{' '.join(damaged)} Going back to {path.name}.", stacklevel=2)
        return path, stored
    if damaged:
        raise ValueError(f"No checkpoint in {folder} can be read. {' '.join(damaged)}")
    raise FileNotFoundError(f"There is no checkpoint in {folder}. Give a run folder that `genrep train` wrote.")


def newest_of_all_ranks(folder: Path) -> tuple[Path, storage.Stored]:
    """The newest checkpoint that all ranks can read, as this one continues from it."""
    return read(folder, ranks.lowest(newest(folder)[1].about["step"]))


def _load(path: Path) -> storage.Stored:
    """A checkpoint whose header is what `loop` writes, under the name that belongs to it."""
    if path.is_symlink():
        raise ValueError(f"{path} is a link, not a checkpoint.")
    stored = storage.load(path)
    about = stored.about
    wrong = [k for k, kinds in _KINDS.items() if k not in about or type(about[k]) not in kinds]
    if wrong:
        raise ValueError(
            f"{path} is not a checkpoint of a run: its header lacks {', '.join(wrong)}, or has them wrong."
        )
    if not about["step"] == int(path.stem) >= 0:
        raise ValueError(f"{path} is named for another step than the {about['step']} of its header.")
    if others := [name for name in stored.tensors if name.split("/")[0] not in _PARTS]:
        raise ValueError(f"{path} is not a checkpoint of a run: unexpected {others[:5]}.")
    windows = {name.removeprefix("window/"): t for name, t in stored.tensors.items() if name.startswith("window/")}
    steps: dict[str, Any] = about["window"]
    if windows.keys() != steps.keys() or any(t.shape != (len(steps[name]),) for name, t in windows.items()):
        raise ValueError(f"{path} is damaged: its unfinished line of the log has other terms than its header says.")
    return stored


def described(about: Mapping[str, Any], source: str) -> tuple[Recipe, DataSpec]:
    """How a file says that its model was made, checked before anything is built.

    Raises ValueError for what is no name, option or shape, and for data of more than 2^24 values an example.
    """
    recipe, data = about.get("recipe"), about.get("data")
    if not (isinstance(recipe, dict) and recipe.keys() == {"name", "options"} and isinstance(recipe["name"], str)):
        raise ValueError(f"{source} does not name the recipe of its model, so the model cannot be built again.")
    if not isinstance(recipe["options"], dict):
        raise ValueError(f"{source}: expected the options of {recipe['name']} by name, got {recipe['options']!r:.60}.")
    if not isinstance(data, dict) or not data.keys() <= set(DataSpec._fields) or "shape" not in data:
        raise ValueError(f"{source} does not describe the data of its model.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    spec = DataSpec(**values)
    if not (_counts(spec.shape, 1) and 1 <= len(spec.shape) <= 4 and math.prod(spec.shape) <= _LARGEST):
        raise ValueError(f"{source}: expected a shape of at most {_LARGEST} values, got {data['shape']!r:.60}.")
    others = [0 if spec.levels is None else spec.levels, spec.classes, spec.condition]
    if not _counts(others, 0) or max(others) > 2**16 or spec.levels in (0, 1):
        raise ValueError(f"{source}: expected levels, classes and condition up to {2**16}, got {others!r:.60}.")
    for moments in (spec.mean, spec.std):
        if not isinstance(moments, tuple) or len(moments) not in (0, spec.shape[0]) or not all(map(_finite, moments)):
            raise ValueError(f"{source}: expected a finite mean and std of each channel, got {moments!r:.60}.")
    if any(s <= 0 for s in spec.std):
        raise ValueError(f"{source}: expected std > 0, got {spec.std!r:.60}.")
    return Recipe(recipe["name"], recipe["options"]), spec


def _counts(values: Any, least: int) -> bool:
    return isinstance(values, (tuple, list)) and all(type(n) is int and least <= n < 2**31 for n in values)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
