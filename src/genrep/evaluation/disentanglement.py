"""Does each latent coordinate hold one factor of variation?  MIG, SAP and DCI on plain arrays.

Codes (N, L) are real; factors (N, F) are integers. Codes are cut into 20 bins of equal width from their least to their
greatest value, for every model alike: mutual information depends on the bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from genrep.evaluation.arrays import Array, features, group_of
from genrep.evaluation.clusters import entropy
from genrep.evaluation.estimate import Estimate, jackknifed

BINS = 20


def _checked(codes: Array, factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    z, f = features(codes, "codes").cpu().numpy(), torch.as_tensor(factors).detach().cpu()
    if f.ndim != 2 or f.is_floating_point() or len(f) != len(z) or f.min() < 0:
        raise ValueError(f"Expected factors ({len(z)}, F) of integers from 0, got {tuple(f.shape)} {f.dtype}.")
    if z.shape[1] < 2:
        raise ValueError("Expected at least 2 codes: the gap is between the best and the second.")
    for j in range(f.shape[1]):
        if len(f[:, j].unique()) < 2:
            raise ValueError(f"Expected factors that vary, but factor {j} is constant; leave it out.")
    return z, f.numpy()


def discretised(codes: np.ndarray) -> np.ndarray:
    """Bin 0..19 of each code; a constant code is one bin."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    return np.minimum((codes - low) / width * BINS, BINS - 1).astype(np.int64)


def _jackknifed(score: Callable[[np.ndarray], float], n: int, groups: int, seed: int, **how: Any) -> Estimate:
    group = group_of(n, groups, seed).numpy()
    replicates = [score(np.flatnonzero(group != g)) for g in range(groups)]
    return jackknifed(score(np.arange(n)), replicates, n=(n, 0), seed=seed, **how)


def _joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1.0)
    return table


def _gap(scores: np.ndarray) -> np.ndarray:
    """Best minus second over codes; scores (L, F) -> (F,)."""
    ordered = np.sort(scores, 0)
    return ordered[-1] - ordered[-2]


def mutual_information_gap(
    codes: Array,
    factors: Tensor,
    *,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """MIG: the mean over factors of (I_1 - I_2) / H(factor), I_1 and I_2 the two largest of I(code; factor).

    Reference: Chen et al. (2018), eq. 6. The plug-in mutual information is biased upwards at small N.
    """
    z, f = _checked(codes, factors)
    bins = discretised(z)

    def score(rows: np.ndarray) -> float:
        found = np.array(
            [[_information(bins[rows, i], f[rows, j]) for j in range(f.shape[1])] for i in range(z.shape[1])]
        )
        return float(_gap(found).mean())

    return _jackknifed(
        score, len(z), groups, seed, level=level, protocol=protocol, metric="MIG", estimator=f"{BINS} bins"
    )


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """I(a; b) / H(b)."""
    p = _joint(a, b) / len(a)
    return (entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p.ravel())) / entropy(p.sum(0))


def separated_predictability(
    codes: Array,
    factors: Tensor,
    *,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """SAP: the mean over factors of the gap between the two best codes in predicting the factor alone.

    The predictor is the commonest value in the code's bin among one half of the rows; its score is the accuracy on the
    other half, where the paper fits thresholds or a linear SVM. Reference: Kumar et al. (2018), section 3.
    """
    z, f = _checked(codes, factors)
    bins, half = discretised(z), group_of(len(z), 2, seed + 1).numpy() == 0

    def score(rows: np.ndarray) -> float:
        fit, read = rows[half[rows]], rows[~half[rows]]
        found = np.empty((z.shape[1], f.shape[1]))
        for i, j in np.ndindex(*found.shape):
            table = np.zeros((BINS, int(f[:, j].max()) + 1))
            np.add.at(table, (bins[fit, i], f[fit, j]), 1.0)
            table += 1e-9 * table.sum(0)  # an empty bin predicts the commonest value of all
            found[i, j] = (table.argmax(1)[bins[read, i]] == f[read, j]).mean()
        return float(_gap(found).mean())

    return _jackknifed(
        score, len(z), groups, seed, level=level, protocol=protocol, metric="SAP", estimator=f"{BINS} bins"
    )


class DCI(NamedTuple):
    disentanglement: Estimate
    completeness: Estimate
    informativeness: Estimate


def dci(
    codes: Array,
    factors: Tensor,
    *,
    groups: int = 5,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> DCI:
    """Disentanglement, completeness, informativeness from the importances R (L, F) of a random forest per factor.

        D = sum_i rho_i (1 - H_F(R_i.)),    C = mean_j (1 - H_L(R_.j)),    I = mean accuracy on the half not trained on

    H_K is the entropy of the normalised row or column to base K; rho_i is the share of code i in all importance. Every
    jackknife replicate fits its own forests, hence few groups. Reference: Eastwood & Williams (2018), section 3.
    """
    z, f = _checked(codes, factors)
    if f.shape[1] < 2:
        raise ValueError("Expected at least 2 factors: disentanglement is an entropy over factors.")
    half, group = group_of(len(z), 2, seed + 1).numpy() == 0, group_of(len(z), groups, seed).numpy()
    keeps = [np.ones(len(z), dtype=bool), *(group != g for g in range(groups))]
    scores = np.array([_forests(z[k & half], f[k & half], z[k & ~half], f[k & ~half], seed) for k in keeps])
    names = ("disentanglement", "completeness", "informativeness")
    return DCI(
        *(
            jackknifed(
                column[0], column[1:].tolist(), n=(len(z), 0), protocol=protocol, level=level, seed=seed, metric=name
            )
            for name, column in zip(names, scores.T, strict=True)
        )
    )


def _forests(
    z: np.ndarray, f: np.ndarray, z_test: np.ndarray, f_test: np.ndarray, seed: int
) -> tuple[float, float, float]:
    importance, accuracy = [], []
    for j in range(f.shape[1]):
        forest = RandomForestClassifier(50, min_samples_leaf=5, max_features=None, random_state=seed).fit(z, f[:, j])  # pyright: ignore[reportArgumentType]: takes None
        importance.append(forest.feature_importances_)
        accuracy.append(float(forest.score(z_test, f_test[:, j])))
    r = np.stack(importance, 1)  # (L, F)
    share = r.sum(1) / max(r.sum(), 1e-300)  # where no code tells a factor, as codes that are constant, D and C are 0
    return float(share @ _purity(r)), float(_purity(r.T).mean()), float(np.mean(accuracy))


def _purity(r: np.ndarray) -> np.ndarray:
    """1 - entropy of each row over the base of its length; a row of zeros holds nothing and counts 0."""
    total = r.sum(1, keepdims=True)
    p = r / np.where(total > 0, total, 1)
    return np.array([1 - entropy(row) / np.log(len(row)) if row.sum() > 0 else 0.0 for row in p])
