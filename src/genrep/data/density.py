"""The tables of density estimation, as masked autoregressive flows were measured on them (Papamakarios et al., 2017).

POWER, GAS, HEPMASS and MINIBOONE are read from the files of the user below GENREP_DATA, in the folders `power`, `gas`,
`hepmass` and `miniboone`: `data.npy`; `ethylene_CO.txt` as UCI gives it or `ethylene_CO.npy` without its first three
columns; `1000_train.csv` and `1000_test.csv`; `data.npy`. The preprocessing is the published one (section 4.2 and
appendix D), so that nats compare with the published tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genrep.data.readers import Raw
from genrep.data.splits import Part

_TENTH = 0.1
_CORRELATED = 0.98
_REPEATED = 5  # rows with the smallest value of a column that make it discrete
_PUBLISHED = "all three parts are those of Papamakarios et al., 2017: the last tenth, and of the rest the last tenth."


def bsds300(paths: Sequence[Path], seed: int) -> Raw:
    """Patches of 8 x 8 pixels: uniform noise, minus the patch's mean, without the last pixel: 63 columns."""
    rng = np.random.RandomState(0)  # the same noise for everyone
    parts = {}
    with np.load(paths[0], allow_pickle=False) as file:
        for split, key in (("train", "train"), ("validation", "valid"), ("test", "test")):
            grey = file[f"{key}_patches"].reshape(-1, 64)
            x = (grey + rng.rand(*grey.shape)) / 256
            parts[split] = Part((x - x.mean(1, keepdims=True))[:, :-1].astype(np.float32))
    split = ("all three are those of the source's copy.",)
    columns = [f"pixel {i}" for i in range(63)]
    return Raw(parts, split, None, columns=columns, notes=("noise, minus the patch's mean, last pixel left out",))


def power(paths: Sequence[Path], seed: int) -> Raw:
    """Household electric power: two columns left out, noise of the width of their rounding on five others."""
    x, rng = np.load(_file("power/data.npy"), allow_pickle=False), np.random.RandomState(42)
    rng.shuffle(x)
    x = np.delete(x, (1, 3), axis=1)
    n = len(x)
    voltage, gap, meters = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    return _normalised(*_tenths(x + np.hstack([gap, voltage, meters, np.zeros((n, 1))])))


def gas(paths: Sequence[Path], seed: int) -> Raw:
    """Sensors in a mixture of gases: of every set of columns that correlate above 0.98 one is kept."""
    try:
        x = np.load(_file("gas/ethylene_CO.npy"), allow_pickle=False)
    except ValueError:
        x = np.loadtxt(_file("gas/ethylene_CO.txt"), skiprows=1)[:, 3:]  # without time, methane or CO, and ethylene
    while (alike := (np.corrcoef(x.T) > _CORRELATED).sum(1) > 1).any():
        x = np.delete(x, np.flatnonzero(alike)[0], axis=1)
    return _raw(*_tenths((x - x.mean(0)) / x.std(0, ddof=1)))


def hepmass(paths: Sequence[Path], seed: int) -> Raw:
    """Collisions: the signal of the set of mass 1000; columns with repeated values left out."""
    found = []
    for split in ("train", "test"):
        x = np.genfromtxt(_file(f"hepmass/1000_{split}.csv"), delimiter=",", skip_header=1)
        found.append(x[x[:, 0] == 1][:, 1:])
    train, test = found[0], found[1][:, : found[0].shape[1]]  # rows of the test file have a column too many
    mean, std = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / std, (test - mean) / std
    kept = (train == train.min(0)).sum(0) <= _REPEATED
    train, held = train[:, kept], int(_TENTH * len(train))
    return _raw(train[:-held], train[-held:], test[:, kept])


def miniboone(paths: Sequence[Path], seed: int) -> Raw:
    """Neutrinos; the file has been cleaned by its authors."""
    return _normalised(*_tenths(np.load(_file("miniboone/data.npy"), allow_pickle=False)))


def _tenths(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train, validation and test: the last tenth is test, the last tenth of the rest validation."""
    if (held := int(_TENTH * len(x))) < 1 or (second := int(_TENTH * (len(x) - held))) < 1:
        raise ValueError(f"Expected at least 12 rows to split into three, got {len(x)}.")
    rest, test = x[:-held], x[-held:]
    return rest[:-second], rest[-second:], test


def _normalised(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Raw:
    """By the moments of train and validation together."""
    both = np.vstack([train, validation])
    mean, std = both.mean(0), both.std(0)
    return _raw(*((x - mean) / std for x in (train, validation, test)))


def _raw(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Raw:
    parts = {"train": train, "validation": validation, "test": test}
    held = {k: Part(np.ascontiguousarray(x, np.float32)) for k, x in parts.items()}
    return Raw(held, (_PUBLISHED,), None, columns=[f"x{i}" for i in range(train.shape[1])])


def _file(name: str) -> Path:
    """A file of the user; which bytes it has is not checked."""
    folder = os.environ.get("GENREP_DATA")
    if folder and (path := Path(folder) / name).is_file():
        return path
    where = f"in GENREP_DATA={folder}" if folder else "to be found: GENREP_DATA is not set"
    raise ValueError(f"{name} is not {where}. Set GENREP_DATA to a folder that holds it.")
