"""Choosing by name, with errors that help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
