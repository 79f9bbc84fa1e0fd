"""The folder is the registry: one file per command of `genrep`; file, command and function share one name.

A command is a function of the arguments after its name, and the first line of its file says in one line what it does.
To list the commands no file is imported, so that `genrep --help` is quick.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from genrep.naming import choose


def names() -> list[str]:
    """All commands; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def summary(name: str) -> str:
    """What a command does, from the first line of its file.

    >>> summary("resume")
    'continue a run, bit for bit as if it had never stopped'
    """
    with (Path(__path__[0]) / f"{name}.py").open(encoding="utf8") as file:
        line = file.readline().strip().strip('"').rstrip(".")
    return line[:1].lower() + line[1:]


def get(name: str) -> Callable[[list[str]], None]:
    """The command of that name; a ValueError lists those there are and suggests the nearest."""
    choose(name, names(), "command")
    return getattr(import_module(f"{__name__}.{name}"), name)
