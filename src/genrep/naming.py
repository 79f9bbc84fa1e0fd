"""Choosing by name, and values of the right kind, with errors that help."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def choose(value: str, valid: Iterable[str], what: str) -> str:
    """`value` if it is valid; else a ValueError that lists what is and suggests the nearest.

    >>> choose("vea", ["ddpm", "vae"], "model")
    Traceback (most recent call last):
    ValueError: Unknown model 'vea'. Did you mean 'vae'? Valid: ddpm, vae.
    """
    valid = list(valid)
    if value in valid:
        return value
    near = difflib.get_close_matches(value, valid, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"Unknown {what} '{value}'.{hint} Valid: {', '.join(valid)}.")


def file_name(text: str) -> str:
    """Text as the name of a file or folder: whatever could mean something to a file system becomes a line.

    >>> file_name("DAED 0.1 / small")
    'DAED_0.1_small'
    """
    return re.sub(r"[^\w.=+-]+", "_", text)


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value (a number, text, or a tuple or list of such) is of the kind that an annotation says.

    >>> fits(3, int | None), fits(3, float), fits(True, int), fits(float("nan"), float), fits([1, 2], tuple[int, ...])
    (True, True, False, False, True)
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args)
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = args[:1] * len(value) if args[1:] == (...,) else args
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind in (None, NoneType):
        return value is None
    return kind is Any or isinstance(value, origin or kind)
