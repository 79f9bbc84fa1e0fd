"""Matrix products and eigenvalues: NumPy and SciPy for tensors in main memory, torch elsewhere.

Both call LAPACK. On the processors measured NumPy's library was twice as fast, and computes A^T A by its upper half.
"""

from __future__ import annotations

import scipy.linalg
import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a b, (n, k), (k, m) -> (n, m)."""
    return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b


def eigenvalues(symmetric: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix (n, n), ascending."""
    if symmetric.device.type != "cpu":
        return torch.linalg.eigvalsh(symmetric)
    found = scipy.linalg.eigh(symmetric.numpy(), eigvals_only=True, driver="evd", check_finite=False)
    return torch.from_numpy(found)


def cholesky(positive: Tensor) -> Tensor | None:
    """The lower factor of a positive definite matrix, or None where it is singular."""
    lower, failed = torch.linalg.cholesky_ex(positive)
    return None if failed else lower
