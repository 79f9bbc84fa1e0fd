"""The folder is the registry: one file per kind of experiment, which `kind:` of a YAML file in `experiments/` names.

A kind is a module with

    run(said, how, *, seed, folder, progress) -> dict

`said` is the YAML file, `how` the budget without its seeds. It keeps what it has finished in `folder`, so that a second
call goes on where the first was cut, and returns a table {"protocol": text, "columns": [...], "rows": [[...], ...],
"notes": [...], "pictures": {title: path in folder}}; the last two may be left out. `compare` returns a report instead.

A module may also say `KEYS` and `BUDGET`, the keys it reads of the file beside the common ones and of a budget; then
any other is refused, with the nearest known.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from genrep.naming import choose

COMMON = ("title", "kind", "data", "published", "notes", "budgets")
NEEDED = ("title", "published", "budgets")
BUDGETS = ("small", "gpu", "full")


def kinds() -> list[str]:
    """All kinds of experiments; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def kind(name: str) -> ModuleType:
    """The module of that kind; a ValueError lists those there are."""
    return import_module(f"{__name__}.{choose(name, kinds(), 'kind of experiment')}")


def names(folder: Path) -> list[str]:
    """Names of the experiments in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read(name: str, folder: Path) -> dict[str, Any]:
    """An experiment by name, checked; a ValueError says what its file lacks or has too much."""
    if not (there := names(folder)):
        raise ValueError(
            f"There are no experiments in {folder.absolute()}: run this in a copy of the project, or say --root."
        )
    path = folder / f"{choose(name, there, 'experiment')}.yaml"
    try:
        said = yaml.safe_load(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path} must say {', '.join(NEEDED)}.")
    said = {"kind": "compare", "notes": [], **said}
    module = kind(said["kind"])
    missing = [k for k in (*NEEDED, *vars(module).get("NEEDED", ())) if k not in said]
    if missing:
        raise ValueError(f"{path} must say {', '.join(NEEDED)}; it lacks {', '.join(missing)}.")
    for key in ("published", "notes"):
        if not (isinstance(said[key], list) and all(isinstance(s, str) for s in said[key])):
            raise ValueError(f"Expected {key} in {path.name} to be a list of sentences, got {said[key]!r:.60}.")
    _check_keys(path.name, said, module)
    return said


def _check_keys(file: str, said: Mapping[str, Any], module: ModuleType) -> None:
    known: tuple[str, ...] | None = vars(module).get("KEYS")
    of_budget: tuple[str, ...] | None = vars(module).get("BUDGET")
    if known is not None:
        _check(said, (*COMMON, *known), f"entry of {file}")
    if not isinstance(said["budgets"], dict) or "small" not in said["budgets"]:
        raise ValueError(
            f"Expected budgets in {file} to be small and perhaps gpu and full, got {said['budgets']!r:.60}."
        )
    for budget, how in said["budgets"].items():
        choose(budget, BUDGETS, f"budget in {file}")
        if not isinstance(how, dict):
            raise ValueError(
                f"Expected budget {budget} in {file} to be a mapping such as {{steps: 100}}, got {how!r:.60}."
            )
        if of_budget is not None:
            _check(how, (*of_budget, "seeds"), f"entry of budget {budget} in {file}")
        seeds = how.get("seeds", [0])
        if not (isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds)):
            raise ValueError(f"Expected seeds of budget {budget} in {file} to be a list of numbers, got {seeds!r:.60}.")


def _check(given: Iterable[str], known: Sequence[str], what: str) -> None:
    for key in given:
        choose(key, known, what)
