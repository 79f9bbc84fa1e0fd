"""Matrix products and eigenvalues: NumPy and SciPy for tensors in main memory, torch elsewhere.

Both call LAPACK. On the processors measured NumPy's library was twice as fast, and computes A^T A by its upper half.
Small matrices go to one of its threads: several take longer to find a processor beside those of torch than to compute.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

_SHARED = 768**3  # multiplications from which on threads pay, measured


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks for them among all that is loaded, which takes 10 ms


def _threads(multiplications: int) -> AbstractContextManager[Any]:
    return nullcontext() if multiplications >= _SHARED else _libraries().limit(limits=1, user_api="blas")


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a b, (n, k), (k, m) -> (n, m)."""
    if a.device.type != "cpu":
        return a @ b
    with _threads(len(a) * b.numel()):
        return torch.from_numpy(a.numpy() @ b.numpy())


def eigenvalues(symmetric: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix (n, n), ascending."""
    if symmetric.device.type != "cpu":
        return torch.linalg.eigvalsh(symmetric)
    with _threads(len(symmetric) ** 3):
        found = scipy.linalg.eigh(symmetric.numpy(), eigvals_only=True, driver="evd", check_finite=False)
    return torch.from_numpy(found)


def cholesky(positive: Tensor) -> Tensor | None:
    """The lower factor of a positive definite matrix, or None where it is singular."""
    lower, failed = torch.linalg.cholesky_ex(positive)
    return None if failed else lower
