"""Density and training step of `maf` and `nsf` at equal size against zuko, nflows and normflows; 43 columns, batch 512.

Sizes agree in layers, units and, for splines, bins; parameters are counted. All train with the same fused AdamW. The
rivals of `maf`: MAF of zuko, masked affine autoregressive transforms of nflows. Of `nsf` (couplings between LU
matrices): the same of nflows and of normflows; of `nsf_ar`: zuko's NSF.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import alternate, comparison, versions
from genrep.contracts import DataSpec
from genrep.models import build

COLUMNS, BATCH, LAYERS, WIDTH, BINS = 43, 512, 5, 128, 8
LogProb = Callable[[Tensor], Tensor]


def ours(name: str, **options: Any) -> tuple[nn.Module, LogProb]:
    model = build(name, DataSpec((COLUMNS,)), **options)
    return model, lambda x: model.generative().log_prob(x)


def zuko_flow(name: str, **options: Any) -> tuple[nn.Module, LogProb]:
    import zuko

    flow = getattr(zuko.flows, name)(COLUMNS, transforms=LAYERS, hidden_features=[WIDTH] * 3, **options)
    return flow, lambda x: flow().log_prob(x)


def nflows_maf() -> tuple[nn.Module, LogProb]:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import base, permutations
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform

    layers: list[Any] = []
    for _ in range(LAYERS):
        layers += [
            permutations.ReversePermutation(COLUMNS),
            MaskedAffineAutoregressiveTransform(COLUMNS, WIDTH, num_blocks=1, use_residual_blocks=True),
        ]
    flow = Flow(base.CompositeTransform(layers), StandardNormal([COLUMNS]))
    return flow, flow.log_prob


def nflows_nsf() -> tuple[nn.Module, LogProb]:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import base
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform
    from nflows.transforms.lu import LULinear
    from nflows.utils.torchutils import create_alternating_binary_mask

    net = lambda i, o: ResidualNet(i, o, hidden_features=WIDTH, num_blocks=1)  # noqa: E731
    layers: list[Any] = []
    for k in range(LAYERS):
        mask = create_alternating_binary_mask(COLUMNS, even=k % 2 == 0)
        spline = PiecewiseRationalQuadraticCouplingTransform(mask, net, num_bins=BINS, tails="linear", tail_bound=5.0)
        layers += [LULinear(COLUMNS, identity_init=True), spline]
    flow = Flow(base.CompositeTransform(layers), StandardNormal([COLUMNS]))
    return flow, flow.log_prob


def normflows_nsf() -> tuple[nn.Module, LogProb]:
    import normflows

    layers: list[Any] = []
    for k in range(LAYERS):
        spline = normflows.flows.CoupledRationalQuadraticSpline(
            COLUMNS, 1, WIDTH, num_bins=BINS, tail_bound=5.0, reverse_mask=k % 2 == 1
        )
        layers += [spline, normflows.flows.LULinearPermute(COLUMNS)]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(COLUMNS, trainable=False), layers)
    return flow, flow.log_prob


PAIRS: tuple[tuple[str, Callable[[], Any], str, Callable[[], Any]], ...] = (
    ("maf", lambda: ours("maf", layers=LAYERS, width=WIDTH), "zuko", lambda: zuko_flow("MAF")),
    ("maf", lambda: ours("maf", layers=LAYERS, width=WIDTH), "nflows", nflows_maf),
    ("nsf", lambda: ours("nsf", couplings=LAYERS, width=WIDTH, bins=BINS), "nflows", nflows_nsf),
    ("nsf", lambda: ours("nsf", couplings=LAYERS, width=WIDTH, bins=BINS), "normflows", normflows_nsf),
    (
        "nsf_ar",
        lambda: ours("nsf_ar", layers=LAYERS, width=WIDTH, bins=BINS),
        "zuko",
        lambda: zuko_flow("NSF", bins=BINS),
    ),
)


def step_of(model: nn.Module, log_prob: LogProb, x: Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    return step


def run() -> Iterator[dict[str, Any]]:
    warnings.simplefilter("ignore")
    for name, make, rival, make_rival in PAIRS:
        torch.manual_seed(0)
        x, (mine, ours_of), (theirs, rival_of) = torch.randn(BATCH, COLUMNS), make(), make_rival()
        sizes = {"parameters": _count(mine), "rival_parameters": _count(theirs)}
        step, rival_step = step_of(mine, ours_of, x), step_of(theirs, rival_of, x)
        about = f"{BATCH} rows of {COLUMNS} columns, against {rival}"
        more: dict[str, Any] = {"versions": versions(rival), **sizes}
        yield comparison(f"{name} training step, {about}", *alternate(step, rival_step, 15), target=1.0, **more)
        mine.eval(), theirs.eval()

        def scored(f: LogProb, x: Tensor = x) -> None:
            with torch.no_grad():
                f(x)

        both = alternate(lambda: scored(ours_of), lambda: scored(rival_of), 15)  # noqa: B023
        yield comparison(f"{name} density, {about}", *both, target=1.0, **more)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
