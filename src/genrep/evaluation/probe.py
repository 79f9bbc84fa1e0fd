"""What a simple reader finds in frozen features: linear and k-nearest-neighbour probes of classes and of real targets.

The regularisation is chosen by cross-validation on the training rows; the test rows are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genrep.evaluation.arrays import Array, features, group_of
from genrep.evaluation.estimate import Estimate, jackknifed, proportion
from genrep.evaluation.logistic import basis, logistic

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic probe
PENALTIES = tuple(10.0**p for p in range(-4, 5))  # of the ridge probe
NEIGHBOURS = (1, 5, 20, 50)


def probe(
    train: Array,
    train_target: Array,
    test: Array,
    test_target: Array,
    *,
    reader: Literal["linear", "neighbours"] = "linear",
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Accuracy on integer targets (binomial error), R^2 on real ones (jackknife over test rows).

    train (N, d), test (M, d); targets (N,), (M,), or (N, T), (M, T) real: R^2 is then averaged over the T columns.
    Features are standardised by the training rows. "linear": logistic regression or ridge; the penalty of the former is
    lowered step by step until the cross-validated accuracy falls. "neighbours": the mean or majority of the k nearest,
    k one of 1, 5, 20, 50. What was chosen stands in the protocol. n is (train, test).
    """
    x, z = features(train, "train"), features(test, "test")
    if x.shape[1] != z.shape[1]:
        raise ValueError(f"Expected equal widths, got train {tuple(x.shape)} and test {tuple(z.shape)}.")
    y, t = (_target(v, len(f), name) for v, f, name in ((train_target, x, "train"), (test_target, z, "test")))
    if y.dtype.kind != t.dtype.kind or y.shape[1:] != t.shape[1:]:
        raise ValueError(f"Expected one kind of target, got {y.dtype} {y.shape} and {t.dtype} {t.shape}.")
    classes = y.dtype.kind in "iu"
    fitted = _fitted(classes, reader, x.cpu().numpy(), y, seed)
    predicted, n = fitted.predict(z.cpu().numpy()), (len(x), len(z))
    stated = {"metric": "accuracy" if classes else "R2", "reader": reader, "chosen": fitted.chosen, "seed": seed}
    if classes:
        right = float((predicted == t).mean())
        return proportion(right, len(t), n=n, protocol=protocol, level=level, **stated)
    group = group_of(len(t), min(20, len(t) // 2), seed).numpy()
    replicates = [_r2(t[group != g], predicted[group != g]) for g in range(group.max() + 1)]
    return jackknifed(_r2(t, predicted), replicates, n=n, protocol=protocol, level=level, **stated)


def _target(y: Array, n: int, name: str) -> np.ndarray:
    t = torch.as_tensor(y).detach().cpu()
    real = t.is_floating_point()
    if len(t) != n or t.ndim not in ((1, 2) if real else (1,)):
        raise ValueError(
            f"Expected {n} {name} targets, integers (N,) or reals (N,) or (N, T), got {tuple(t.shape)} {t.dtype}."
        )
    if real and not t.isfinite().all():
        raise ValueError(f"Expected finite {name} targets, but row {int((~t.isfinite()).nonzero()[0, 0])} is not.")
    return t.double().numpy() if real else t.long().numpy()


class Reader(NamedTuple):
    """A fitted reader, and the strength or number of neighbours that cross-validation chose."""

    predict: Callable[[np.ndarray], np.ndarray]
    chosen: float


def _fitted(classes: bool, reader: str, x: np.ndarray, y: np.ndarray, seed: int) -> Reader:
    """The reader with the cross-validated choice of its regularisation, fitted to all training rows."""
    if reader not in ("linear", "neighbours"):
        raise ValueError(f"Expected reader to be linear or neighbours, got {reader!r}.")
    smallest = int(np.unique(y, return_counts=True)[1].min()) if classes else len(y)
    folds = min(5, smallest)
    if folds < 2 or (classes and len(np.unique(y)) < 2):
        raise ValueError("Expected at least two classes with two training rows each; leave out the classes with one.")
    split = (StratifiedKFold if classes else KFold)(folds, shuffle=True, random_state=seed)
    if reader == "linear" and not classes:
        ridge = RidgeCV(PENALTIES)  # it chooses by leave-one-out itself
        return Reader(make_pipeline(StandardScaler(), ridge).fit(x, y).predict, float(np.asarray(ridge.alpha_)))
    if reader == "linear":
        return _logistic(x, y, split)
    choices = [k for k in NEIGHBOURS if k <= len(y) * (folds - 1) // folds]
    pipeline = make_pipeline(StandardScaler(), KNeighborsClassifier() if classes else KNeighborsRegressor())
    name = f"{pipeline.steps[-1][0]}__n_neighbors"
    search = GridSearchCV(pipeline, {name: choices}, cv=split).fit(x, y)
    return Reader(search.predict, float(search.best_params_[name]))


def _logistic(x: np.ndarray, y: np.ndarray, split: BaseCrossValidator) -> Reader:
    """The penalty is lowered as long as the accuracy on held-out folds does not fall."""
    x = x.astype(np.float64)
    folds = [(x[a], y[a], x[b], y[b], basis(x[a])) for a, b in split.split(x, y)]
    best, chosen, fitted = -1.0, STRENGTHS[0], [None] * len(folds)
    for strength in STRENGTHS:
        fitted = [logistic(f[0], f[1], strength, given=f[4], start=s) for f, s in zip(folds, fitted, strict=True)]
        score = float(np.mean([(s.predict(f[2]) == f[3]).mean() for f, s in zip(folds, fitted, strict=True)]))
        if score < best:
            break
        best, chosen = score, strength
    return Reader(logistic(x, y, chosen).predict, chosen)


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """1 - residual over total variance, averaged over columns; a constant column is an error of the caller."""
    total = ((truth - truth.mean(0)) ** 2).sum(0)
    if np.any(total == 0):
        raise ValueError("Expected test targets that vary, but a column is constant; R^2 is not defined for it.")
    return float(np.mean(1 - ((truth - predicted) ** 2).sum(0) / total))
