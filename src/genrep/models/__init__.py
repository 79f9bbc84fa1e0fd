"""The folder is the registry: one file per named model; file, model and function share one name.

A recipe is a function of a DataSpec and of keyword options that picks parts and returns a `Model`. Its signature is the
schema of its options, in Python, on the command line and in YAML alike; its docstring is its documentation.
"""

from __future__ import annotations

import functools
import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, Protocol, get_args, get_origin

from genrep.contracts import DataSpec, Model, Recipe
from genrep.naming import choose, fits


class BuildsModel(Protocol):
    """A registered recipe."""

    __name__: str
    family: str
    reference: str

    def __call__(self, data: DataSpec, **options: Any) -> Model: ...


def recipe(*, family: str, reference: str) -> Callable[[Callable[..., Model]], BuildsModel]:
    """Mark a function as a recipe: what it builds remembers its name and options, so that it can be saved."""

    def register(function: Callable[..., Model]) -> BuildsModel:
        @functools.wraps(function)
        def build(data: DataSpec, **options: Any) -> Model:
            for option, parameter in inspect.signature(function, eval_str=True).parameters.items():
                if option not in options:
                    continue
                value, kind = options[option], parameter.annotation
                if get_origin(kind) is Literal:
                    choose(value, get_args(kind), f"{option} of {function.__name__}")
                elif not fits(value, kind):
                    named = getattr(kind, "__name__", kind) if get_origin(kind) is None else kind
                    raise ValueError(f"Expected {option} of {function.__name__} to be {named}, got {value!r:.60}.")
            model = function(data, **options)
            model.recipe = Recipe(function.__name__, dict(options))
            return model

        built: Any = build
        built.family, built.reference = family, reference
        return built

    return register


def names() -> list[str]:
    """All named models; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> BuildsModel:
    """The recipe of that name; a ValueError lists those there are and suggests the nearest."""
    choose(name, names(), "model")
    return getattr(import_module(f"{__name__}.{name}"), name)


def options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a model: everything in its signature but the data."""
    parameters = inspect.signature(get(name), eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def build(name: str, data: DataSpec, **given: Any) -> Model:
    """Build a model for data of that kind; a ValueError for an unknown name or option."""
    known = options(name)
    for option in given:
        choose(option, known, f"option of {name}")
    return get(name)(data, **given)


def example(name: str) -> Model:
    """The model with its defaults, for small images with labels, or for vectors where it is for vectors only."""
    images, vectors = DataSpec((1, 8, 8), levels=17, classes=10), DataSpec((8,), mean=(0.0,) * 8, std=(1.0,) * 8)
    try:
        return build(name, images)
    except ValueError:  # it says that it is for vectors
        return build(name, vectors)


def _peers(capability: str) -> list[str]:
    """Names of the models that have this capability."""
    able = [(name, example(name).capabilities) for name in names()]
    return [name for name, can in able if any(c.split(":")[0] == capability for c in can)]


Model.peers = staticmethod(_peers)
