"""What can be read from every layer of a network at every noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from genrep.contracts import Model, Unsupported, evaluating, seeded
from genrep.evaluation.probe import probe


class Map(NamedTuple):
    """Scores by layer (rows) and noise level (columns), with standard errors where there are such."""

    layers: list[str]
    noises: list[float]
    values: np.ndarray  # (layers, noises)
    errors: np.ndarray


def layers_at(model: Model, x: Tensor, noise: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Features of x by layer at a noise level, with the condition unknown, on the CPU."""
    model.require("features")
    with torch.no_grad(), evaluating(model), seeded(seed):
        parts = [model.features(part, noise=noise) for part in x.split(256)]
    return {name: torch.cat([p[name].float().cpu() for p in parts]) for name in parts[0]}


def probe_map(
    model: Model,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    noises: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7),
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Map:
    """Accuracy of linear probes of the labels (see `probe`), for every layer and noise level; (x, labels) pairs."""
    if train[1] is None or train[1].is_floating_point():
        raise Unsupported("A probe of classes needs labels, and this data set has none.")
    rows: dict[str, list[tuple[float, float]]] = {}
    for i, noise in enumerate(noises):
        progress(f"noise {noise:g}")
        a, b = (layers_at(model, x, noise, seed=seed + i) for x in (train[0], test[0]))
        for layer in a:
            found = probe(a[layer], train[1], b[layer], test[1], seed=seed)
            rows.setdefault(layer, []).append((found.value, found.standard_error))
    table = np.array(list(rows.values()))
    return Map(list(rows), list(noises), table[..., 0], table[..., 1])


def attribute_map(
    model: Model,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    names: Sequence[str],
    noises: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7),
    *,
    layer: str | None = None,
    strength: float = 0.01,
    seed: int = 0,
) -> Map:
    """Area under the ROC curve of a logistic regression for each binary attribute (N, A) at every noise level.

    Of one layer, or of all side by side; `strength` is scikit-learn's C. An attribute that is constant in either split
    gives nan. Errors are those of Hanley & McNeil (1982).
    """
    y, z = (np.asarray(t[1]).reshape(len(t[0]), -1) > 0 for t in (train, test))
    if y.shape[1] != len(names):
        raise ValueError(f"Expected {len(names)} attributes, one for each name, got {y.shape[1]}.")
    values = np.full((len(names), len(noises)), np.nan)
    errors = np.full_like(values, np.nan)
    for j, noise in enumerate(noises):
        a, b = (_joined(layers_at(model, t[0], noise, seed=seed + j), layer) for t in (train, test))
        for i in range(len(names)):
            if len(np.unique(y[:, i])) < 2 or len(np.unique(z[:, i])) < 2:
                continue
            fitted = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(a, y[:, i])
            values[i, j] = auc = float(roc_auc_score(z[:, i], fitted.decision_function(b)))
            errors[i, j] = _auc_error(auc, int(z[:, i].sum()), int((~z[:, i]).sum()))
    return Map(list(names), list(noises), values, errors)


def _joined(layers: dict[str, Tensor], layer: str | None) -> np.ndarray:
    if layer is not None and layer not in layers:
        raise ValueError(f"Expected one of the layers {list(layers)}, got {layer!r}.")
    return (torch.cat(list(layers.values()), 1) if layer is None else layers[layer]).numpy()


def _auc_error(auc: float, positives: int, negatives: int) -> float:
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (two - auc**2)
    return (variance / (positives * negatives)) ** 0.5
