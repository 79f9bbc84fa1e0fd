"""Sinkhorn divergence, value and gradient from a cold start, against GeomLoss, with the errors of both.

The reference is the same problem in float64, solved to a marginal error of 1e-7 and independent of how it was solved: the
optimum is unique and the marginal error certifies it. Clouds: 0.8 N(0, I) + 0.3 against N(0, I). A row compares with one
setting of the rival; `rival_reaches` says whether that setting's gradient or value is as accurate as ours. The target is
10 for scaling 0.95 at n 1000, d 32, blur 0.5, and 1 (never slower) elsewhere; it binds where `rival_reaches`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import alternate, comparison, versions
from genrep.transport.sinkhorn import sinkhorn

SCALINGS = (0.5, 0.9, 0.95)


def clouds(n: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return 0.8 * x + 0.3, y


def differentiated(divergence: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    x = x.detach().requires_grad_()
    value = divergence(x, y)
    return float(value), torch.autograd.grad(value, x)[0]


def errors(found: tuple[float, Tensor], truth: tuple[float, Tensor]) -> dict[str, float]:
    slope = (found[1].double().cpu() - truth[1]).norm() / truth[1].norm()
    return {"value": float(f"{abs(found[0] / truth[0] - 1):.1e}"), "gradient": float(f"{slope:.1e}")}


def run() -> Iterator[dict[str, Any]]:
    from geomloss import SamplesLoss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for n, blur, d in product((256, 1000, 2000), (0.5, 0.05), (16, 32, 64)):
        x64, y64 = clouds(n, d)
        truth = differentiated(lambda x, y: sinkhorn(x, y, blur=blur, tolerance=1e-7).value, x64, y64)
        x, y = x64.float().to(device), y64.float().to(device)
        ours = lambda: differentiated(lambda x, y: sinkhorn(x, y, blur=blur).value, x, y)  # noqa: E731
        mine = errors(ours(), truth)
        for scaling in SCALINGS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")
                rival = lambda: differentiated(loss, x, y)  # noqa: E731
                theirs = errors(rival(), truth)
                seconds = alternate(ours, rival, repeats=1 if n == 2000 else 3)
            yield comparison(
                f"sinkhorn n {n} d {d} blur {blur} scaling {scaling}",
                *seconds,
                target=10.0 if (n, d, blur, scaling) == (1000, 32, 0.5, 0.95) else 1.0,
                versions=versions("geomloss"),
                our_error=mine,
                rival_error=theirs,
                rival_reaches=any(theirs[k] <= mine[k] for k in mine),
            )
