"""Packages that few need: imported where they are used, and named with their extra where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def extra(module: str, name: str, what: str) -> Any:
    """A module of the extra `name`; a ValueError says how to install it.

    >>> extra("a_module_that_nobody_has", "parquet", "Parquet files")
    Traceback (most recent call last):
    ValueError: Parquet files need a package that is not installed: pip install 'genrep[parquet]'.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ValueError(f"{what} need a package that is not installed: pip install 'genrep[{name}]'.") from error
