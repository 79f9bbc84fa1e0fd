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
from genrep.naming import choose


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
                if option in options and get_origin(parameter.annotation) is Literal:
                    choose(options[option], get_args(parameter.annotation), f"{option} of {function.__name__}")
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


_SMALL = (DataSpec((1, 8, 8), levels=4, classes=2), DataSpec((4,), classes=2))


def example(name: str) -> Model:
    """The model for small images, or for short vectors if it takes no images; to ask what it can do."""
    images, vectors = _SMALL
    try:
        return build(name, images)
    except ValueError:
        return build(name, vectors)


def _peers(capability: str) -> list[str]:
    """Names of the models that have this capability."""
    return [name for name in names() if any(c.split(":")[0] == capability for c in example(name).capabilities)]


Model.peers = staticmethod(_peers)
