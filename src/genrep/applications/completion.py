"""Completions: the first values of an example are kept, the others drawn from p(rest | known)."""

from __future__ import annotations

import inspect
import math

from torch import Tensor

from genrep.contracts import Model, Unsupported


def complete(
    model: Model, x: Tensor, known: int, *, draws: int = 1, condition: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Examples (N, draws, *shape) that share the first `known` values of x (N, *shape), integer levels.

    Exact for an autoregressive model: p(x_k+1 ... x_D | x_1 ... x_k) is what it samples from. The order is that of the
    model: row by row from the left, the channels of a pixel together; the values of a vector as they stand.

    Args:
        model: With a sampling option `prefix`.
        x: What is completed, as the data set holds it.
        known: How many values are kept, 0 < known < D.
        draws: Completions of each example.
        condition: Labels or conditions (N, ...) where the model reads them.
        seed: Of the draws.

    Raises:
        Unsupported: A model that cannot keep values.
        ValueError: No value known or all of them, or x that is not like the data of the model.
    """
    if "prefix" not in inspect.signature(type(model.generative).forward).parameters:
        raise Unsupported(
            "This model cannot complete examples: its samples keep no given values. Autoregressive models can."
        )
    size = math.prod(model.data.shape)
    if not 0 < known < size:
        raise ValueError(f"Expected 0 < known < {size}, the values of an example, got {known}.")
    repeated = model.check(x).long().repeat_interleave(draws, 0)
    y = None if condition is None else condition.repeat_interleave(draws, 0)
    n = len(repeated)
    return model.sample(n, condition=y, seed=seed, batch=n, prefix=repeated, known=known).unflatten(0, (len(x), draws))


def masked(x: Tensor, known: int, value: int) -> Tensor:
    """x (N, *shape) with all but its first `known` values, in the order of the model, set to `value`.

    >>> import torch
    >>> masked(torch.tensor([[1, 2, 3, 4]]), 2, 0).tolist()
    [[1, 2, 0, 0]]
    """
    flat = x.movedim(1, -1).flatten(1).clone()
    flat[:, known:] = value
    return flat.unflatten(1, (*x.shape[2:], x.shape[1])).movedim(-1, 1)
