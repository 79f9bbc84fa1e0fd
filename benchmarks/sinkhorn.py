"""Sinkhorn divergence, value and gradient from a cold start, against GeomLoss, with the errors of both.

The reference is the same problem in float64, solved to a marginal error of 1e-7, which certifies it whoever solved it:
the optimum is unique. Clouds: 0.8 N(0, I) + 0.3 against N(0, I). A row compares with one setting of the rival;
`rival_reaches` says whether that setting's value or gradient is as accurate as ours. The target is 10 for scaling 0.95
at n 1000, d 32, blur 0.5, and 1 (never slower) elsewhere where `rival_reaches`; a less accurate rival sets no target.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import alternate, comparison, versions
from genrep.transport.sinkhorn import sinkhorn

SCALINGS = (0.5, 0.9, 0.95)
HEADLINE = (1000, 32, 0.5, 0.95)


def clouds(n: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return 0.8 * x + 0.3, y


def ours(x: Tensor, y: Tensor, blur: float, tolerance: float = 1e-3) -> Tensor:
    return sinkhorn(x, y, blur=blur, tolerance=tolerance).value


def differentiated(divergence: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    x = x.detach().requires_grad_()
    value = divergence(x, y)
    return value.item(), torch.autograd.grad(value, x)[0]


def errors(found: tuple[float, Tensor], truth: tuple[float, Tensor]) -> dict[str, float]:
    slope = (found[1].double().cpu() - truth[1]).norm() / truth[1].norm()
    return {"value": float(f"{abs(found[0] / truth[0] - 1):.1e}"), "gradient": float(f"{slope:.1e}")}


def rival(blur: float, scaling: float) -> Callable[[Tensor, Tensor], Tensor]:
    from geomloss import SamplesLoss

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")


def run() -> Iterator[dict[str, Any]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for n, blur, d in product((1000, 256, 2000), (0.5, 0.05), (32, 16, 64)):
        x, y = clouds(n, d)
        truth = differentiated(partial(ours, blur=blur, tolerance=1e-7), x, y)
        x, y = x.float().to(device), y.float().to(device)
        mine = partial(differentiated, partial(ours, blur=blur), x, y)
        our_error = errors(mine(), truth)
        for scaling in SCALINGS:
            theirs = partial(differentiated, rival(blur, scaling), x, y)
            rival_error = errors(theirs(), truth)
            reaches = any(rival_error[k] <= our_error[k] for k in our_error)
            headline = (n, d, blur, scaling) == HEADLINE
            yield comparison(
                f"sinkhorn n {n} d {d} blur {blur} scaling {scaling}",
                *alternate(mine, theirs, repeats=3),
                target=10.0 if headline else 1.0 if reaches else None,
                versions=versions("geomloss"),
                our_error=our_error,
                rival_error=rival_error,
                rival_reaches=reaches,
            )
