"""`config.yaml` of a run: flat, readable, and all that makes the run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from genrep import models, storage
from genrep.contracts import Recipe
from genrep.training.settings import Settings
from genrep.version import __version__

ORIGIN = ("data", "label", "condition", "layout", "shape", "labelled")  # what says which data
NOT_OPTIONS = ("model", "made_with")  # keys of a config that are no options


def write(
    folder: Path, recipe: Recipe | None, origin: Mapping[str, Any] | None, settings: Settings, notes: Mapping[str, str]
) -> None:
    """Write `config.yaml`: model and data, every option of the model, every setting; `notes`: comments, by key."""
    parts = {
        "model and data": {"model": recipe and recipe.name, **{k: (origin or {}).get(k) for k in ORIGIN}},
        "options of the model": {} if recipe is None else full_options(recipe),
        "settings of training, as resolved": dataclasses.asdict(settings),
    }
    lines = ["# The same run again: genrep train --config config.yaml --out NEW_FOLDER"]
    for title, values in parts.items():
        lines += ["", f"# {title}"]
        lines += [_line(k, v) + (f"  # {notes[k]}" if k in notes else "") for k, v in values.items()]
    versions = {"genrep": __version__, "torch": str(torch.__version__)}
    lines += ["", _line("made_with", versions)]
    storage.write_text(folder / "config.yaml", "\n".join(lines) + "\n")


def full_options(recipe: Recipe) -> dict[str, Any]:
    """Every option of a recipe, the defaults included."""
    return {name: parameter.default for name, parameter in models.options(recipe.name).items()} | recipe.options


def _line(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return f"{key}: " + yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n...")


def read(path: str | Path) -> dict[str, Any]:
    """The keys and values of a config; a ValueError for a file that is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"Expected lines 'option: value' in {path}.")
    return found
