"""Showers as data sets: the simulated set, and responses and particles in the format of the ALICE collaboration.

Images hold log(1 + response); `expm1` undoes it, and every metric in units of the response is to undo it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrep.data.arrays import as_numpy, check_finite
from genrep.data.files import load_arrays, read_headers
from genrep.data.shower_model import CONDITIONS, particles, simulate
from genrep.data.splits import Part, Splits, assemble

_TRAIN, _TEST = 8000, 2000
_RESPONSES, _PARTICLES = "responses", "particles"


def simulated(n: int, seed: int) -> Part:
    """n showers of the parametrised simulator: x (n, 1, 44, 44) log(1 + photoelectrons), y (n, 9) their particles."""
    y = particles(n, seed=seed)
    return Part(simulate(y, seed=seed).log1p()[:, None].numpy(), y.numpy())


def bundled() -> dict[str, Part]:
    """Training and test part of the set `showers`, the same everywhere."""
    return {"train": simulated(_TRAIN, 0), "test": simulated(_TEST, 1)}


def holds_responses(path: Path) -> bool:
    """Whether an `.npz` is one of responses and particles."""
    return path.suffix.lower() == ".npz" and {_RESPONSES, _PARTICLES} <= set(read_headers(path))


def read_responses(path: Path, *, seed: int = 0, memory_limit: int = 8 * 2**30) -> Splits:
    """A data set from an `.npz` with `responses` (N, H, W), counts >= 0, and `particles` (N, C), their conditions."""
    found = load_arrays(path, (_RESPONSES, _PARTICLES), memory_limit)
    return from_responses(found[_RESPONSES], found[_PARTICLES], seed=seed, name=path.stem)


def from_responses(
    responses: Any, of: Any, *, names: Sequence[str] = (), seed: int = 0, name: str = "responses"
) -> Splits:
    """A data set from responses (N, H, W) >= 0 and particles (N, C), those of constant columns left out and named.

    x is log(1 + response). A tenth each is held out for validation and test. `names` of the columns of particles; of
    nine they default to mass, charge, energy, momentum and vertex.
    Raises ValueError for shapes that do not fit together, negative or non-finite responses, and odd sides.
    """
    x, y = as_numpy(responses, "responses").astype(np.float32), as_numpy(of, "particles").astype(np.float32)
    if x.ndim != 3 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"Expected responses (N, H, W) with even sides, got {x.shape}.")
    if y.ndim != 2 or len(y) != len(x):
        raise ValueError(f"Expected a row of particles for each of {len(x)} responses, got {y.shape}.")
    names = list(names) or (list(CONDITIONS) if y.shape[1] == len(CONDITIONS) else [f"p{i}" for i in range(y.shape[1])])
    if len(names) != y.shape[1]:
        raise ValueError(f"Expected {y.shape[1]} names of columns of particles, got {len(names)}.")
    check_finite(x.reshape(len(x), -1), [f"fibre {i}" for i in range(x[0].size)], "responses")
    check_finite(y, names, "particles")
    if x.min() < 0:
        raise ValueError(f"Expected responses of at least zero, with no logarithm taken; the smallest is {x.min()}.")
    varies = y.std(0) > 1e-6 * (1 + np.abs(y).max(0))
    left = [n for n, v in zip(names, varies, strict=True) if not v]
    if not varies.any():
        raise ValueError("All columns of particles are constant: there is nothing to condition on.")
    about = {
        "source": "responses and particles",
        "condition": [n for n, v in zip(names, varies, strict=True) if v],
        "inferred": ["x is log(1 + response)", *([f"constant, left out: {', '.join(left)}"] if left else [])],
    }
    part = Part(np.log1p(x)[:, None], y[:, varies])
    return assemble(name, {"train": part}, levels=None, seed=seed, about=about)
