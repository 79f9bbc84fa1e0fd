"""Multinomial logistic regression on wide, redundant features: a change of variables makes it quick.

    minimise  C sum_i -log softmax(W' x_i + b)_{y_i} + |W|^2 / 2

In the basis of principal components, where the penalty looks the same, the curvature along component j is about
C n e_j / 4 + 1, e_j its variance. Divided by its root, all directions are alike and a quasi-Newton method needs tens of
steps where it needed a thousand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

_SMALLEST = 1e-10  # variance of a component, over that of the first, below which it is left out


class Basis(NamedTuple):
    """Standardised rows in their principal components."""

    mean: np.ndarray  # (d,)
    std: np.ndarray  # (d,)
    vectors: np.ndarray  # (d, r)
    variance: np.ndarray  # (r,)

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """(N, d) -> (N, r)."""
        return ((x - self.mean) / self.std) @ self.vectors


def basis(x: np.ndarray) -> Basis:
    """Of the rows x (N, d); columns that are constant become zero."""
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 0, std, 1.0)
    z, n = (x - mean) / std, len(x)
    if x.shape[1] <= n:
        values, vectors = scipy.linalg.eigh(z.T @ z / n)
    else:
        values, left = scipy.linalg.eigh(z @ z.T / n)
        values, left = values[values > 0], left[:, values > 0]
        vectors = z.T @ left / np.sqrt(values * n)
    kept = values > _SMALLEST * max(float(values.max(initial=0.0)), 1e-300)
    return Basis(mean, std, vectors[:, kept], values[kept])


class Logistic(NamedTuple):
    """A fitted reader: labels (k,), weights (r, k) of the components, bias (k,)."""

    basis: Basis
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Logits of the labels, (N, k)."""
        return self.basis.rotate(x) @ self.weight + self.bias

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The likeliest label of each row, (N,)."""
        return self.labels[self.scores(x).argmax(1)]

    def confidence(self, x: np.ndarray) -> np.ndarray:
        """The probability of the likeliest label of each row, max softmax, (N,)."""
        return softmax(self.scores(x), axis=1).max(1)


def logistic(
    x: np.ndarray, y: np.ndarray, strength: float, *, given: Basis | None = None, start: Logistic | None = None
) -> Logistic:
    """Fit to x (N, d), y (N,) with C = `strength`; `given` basis and `start` save work along a path of strengths."""
    found = basis(x) if given is None else given
    u, labels = found.rotate(x), np.unique(y)
    one = (y[:, None] == labels).astype(float)
    (n, r), k = u.shape, len(labels)
    scale = np.append(1 / np.sqrt(strength * n * found.variance / 4 + 1), 1 / np.sqrt(strength * n / 4))[:, None]
    u = np.concatenate([u, np.ones((n, 1))], 1) * scale.T
    penalty = np.append(np.ones(r), 0.0)[:, None] * scale**2

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = flat.reshape(r + 1, k)
        scores = u @ v
        log_total = np.asarray(logsumexp(scores, axis=1, keepdims=True))
        value = strength * float(log_total.sum() - (one * scores).sum()) + float((penalty * v**2).sum()) / 2
        slope = strength * (u.T @ (np.exp(scores - log_total) - one)) + penalty * v
        return value, slope.ravel()

    first = np.zeros((r + 1, k)) if start is None else np.vstack([start.weight, start.bias]) / scale
    answer = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-4})
    w = answer.x.reshape(r + 1, k) * scale
    return Logistic(found, labels, w[:-1], w[-1])
