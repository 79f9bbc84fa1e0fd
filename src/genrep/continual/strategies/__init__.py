"""The folder is the registry: one file per strategy; file and function share one name.

A strategy is a function of a `Setting` and of keyword options that returns a `Strategy`. Its signature is the schema of
its options, in Python, on the command line and in YAML alike; its docstring is its documentation.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from genrep.continual.strategy import Setting, Strategy
from genrep.naming import choose, fits


def names() -> list[str]:
    """All strategies; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Callable[..., Strategy]:
    """The strategy of that name; a ValueError lists those there are and suggests the nearest."""
    choose(name, names(), "strategy")
    return getattr(import_module(f"{__name__}.{name}"), name)


def options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a strategy: everything in its signature but the setting."""
    parameters = inspect.signature(get(name), eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def build(name: str, setting: Setting, **given: Any) -> Strategy:
    """A strategy as it is before the first task.

    Raises ValueError for an unknown name or option, Unsupported where the model lacks what the strategy needs.
    """
    known = options(name)
    for option, value in given.items():
        choose(option, known, f"option of {name}")
        kind = known[option].annotation
        if not fits(value, kind):
            raise ValueError(f"Expected {option} of {name} to be {getattr(kind, '__name__', kind)}, got {value!r:.60}.")
    if setting.tasks < 1:
        raise ValueError("A stream needs at least one task.")
    return get(name)(setting, **given)
