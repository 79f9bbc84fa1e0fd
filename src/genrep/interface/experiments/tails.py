"""Heavy tails: do samples of a flow have the tail indices of the data?

The data are made: a Student-t copula with a correlation of 0.5 between neighbours, margins Student-t with the `tails`
of the YAML file, 0 for a normal margin. `models` as in `compare`; with `adapted: true` a model gets the option `tails`
from Hill's estimates on the training split. A budget says `steps`, `rows` of the data, `samples`, and may
say `batch`, `lr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from genrep import data as data_sets
from genrep.evaluation.tails import Tail, as_option, tail_indices
from genrep.interface.experiments.density import built, label_of, trained
from genrep.naming import file_name

NEEDED = ("models", "tails")
KEYS = ("models", "tails")
BUDGET = ("steps", "rows", "samples", "batch", "lr")


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    """Hill's index of every heavy margin in data and samples; `inside` counts those within the interval of the data."""
    true = [float(t) for t in said["tails"]]
    splits = data_sets.from_arrays(copula(true, how["rows"], seed), name="student_copula", seed=seed)
    of_data = tail_indices(splits.train.x)  # pyright: ignore[reportAttributeAccessIssue]  -- held in memory
    heavy = [i for i, t in enumerate(true) if t]
    rows = [["data", *[_shown(of_data[i]) for i in heavy], ""]]
    for one in said["models"]:
        adapted = isinstance(one, Mapping) and one.get("adapted", False)
        plain = {k: v for k, v in one.items() if k != "adapted"} if isinstance(one, Mapping) else one
        given = {**plain, "tails": list(as_option(of_data))} if adapted and isinstance(plain, Mapping) else plain
        model = built(given, splits, seed)
        model = trained(model, splits, folder / file_name(label_of(plain)), how, seed=seed, progress=progress)
        of_samples = tail_indices(model.sample(how["samples"], seed=seed).double().cpu())
        inside = sum(_within(of_samples[i], of_data[i]) for i in heavy)
        light = sum(not of_samples[i].heavy for i, t in enumerate(true) if not t)
        told = f"{inside} of {len(heavy)} heavy, {light} of {len(true) - len(heavy)} light"
        rows.append([label_of(plain), *[_shown(of_samples[i]) for i in heavy], told])
    return {
        "protocol": f"{how['rows']} rows with margins of tail index {', '.join(f'{t:g}' for t in true)} (0: normal), "
        f"{how['steps']} updates; Hill's index of {how['samples']} samples, or light; right: within the 95 % interval "
        "of the training split, or light where the margin is.",
        "columns": ["model", *[f"margin {i} ({true[i]:g})" for i in heavy], "right"],
        "rows": rows,
    }


def copula(tails: Sequence[float], rows: int, seed: int) -> np.ndarray:
    """(rows, D) float32: Student-t copula with 3 degrees of freedom, then each margin's quantile function."""
    rng, d = np.random.RandomState(seed), len(tails)
    correlation = 0.5 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    z = rng.multivariate_normal(np.zeros(d), correlation, rows)
    u = stats.t.cdf(z / np.sqrt(rng.chisquare(3, (rows, 1)) / 3), 3)
    u = np.clip(u, 1e-12, 1 - 1e-12)
    margins = [stats.t.ppf(u[:, i], t) if t else stats.norm.ppf(u[:, i]) for i, t in enumerate(tails)]
    return np.stack(margins, 1).astype(np.float32)


def _within(found: Tail, truth: Tail) -> bool:
    low, high, _ = truth.index.interval
    return found.heavy and low <= found.index.value <= high


def _shown(tail: Tail) -> str:
    low, high, _ = tail.index.interval
    return f"{tail.index.value:.2f} [{low:.2f}, {high:.2f}]" if tail.heavy else "light"
