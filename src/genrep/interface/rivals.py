"""Flows of other libraries as models of this one, so that the same loop trains and the same code measures them.

Sizes: `layers` of networks with `width` units and `depth` residual blocks (zuko: 2 depth + 1 plain layers), as in
`maf`, `nsf_ar` and `nsf`; counted parameters agree within a few per cent. Needs zuko, nflows or normflows, of the extra
`bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, DataSpec, Inference, Model, Way
from genrep.distributions.domains import Standard
from genrep.naming import choose
from genrep.objectives.likelihood import NLL

LogProb = Callable[[Tensor], Tensor]
BINS, BOX = 8, 5.0


class Foreign(Conditional):
    """A density with a `log_prob` and a `sample` of another library."""

    def __init__(self, flow: nn.Module, log_prob: LogProb, draw: Callable[[int], Tensor], columns: int) -> None:
        super().__init__()
        self.flow, self.log_prob, self.draw, self.columns = flow, log_prob, draw, columns

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        return _Density(self)

    def likelihoods(self, inference: Inference) -> dict[str, Way]:
        return {"exact": Way(lambda x, y: self.log_prob(x), "exact", "density")}


class _Density(Distribution):
    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(self, part: Foreign) -> None:
        super().__init__(event_shape=torch.Size((part.columns,)), validate_args=False)
        self.part = part

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return self.part.draw(torch.Size(sample_shape).numel()).reshape(*sample_shape, self.part.columns)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.part.log_prob(value)


def rival(name: str, data: DataSpec, *, layers: int = 5, width: int = 128, depth: int = 1) -> Model:
    """A flow of another library by name (`RIVALS`) as a model; ModuleNotFoundError where it is not installed."""
    if len(data.shape) != 1 or data.levels is not None:
        raise ValueError(f"Rivals are for vectors of real values; this data has shape {data.shape}.")
    choose(name, RIVALS, "flow of another library")
    (columns,) = data.shape
    flow, log_prob, draw = RIVALS[name](columns, layers, width, depth)
    part = Foreign(flow, log_prob, draw, columns)
    return Model(data, part, Inference(), NLL(), domain=Standard(data), training={"lr": 1e-3})


Made = tuple[nn.Module, LogProb, Callable[[int], Tensor]]


def _zuko(kind: str, columns: int, layers: int, width: int, depth: int) -> Made:
    more = {"bins": BINS} if kind == "NSF" else {}
    make = getattr(import_module("zuko.flows"), kind)
    flow: Any = make(columns, transforms=layers, hidden_features=[width] * (2 * depth + 1), **more)
    return flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))


def _nflows(layer: Callable[[int, int], list[Any]], columns: int, layers: int) -> Made:
    base, normal = import_module("nflows.transforms.base"), import_module("nflows.distributions.normal")
    steps = [part for k in range(layers) for part in layer(columns, k)]
    flow: Any = import_module("nflows.flows.base").Flow(
        base.CompositeTransform(steps), normal.StandardNormal([columns])
    )
    return flow, flow.log_prob, flow.sample


def _nflows_maf(columns: int, layers: int, width: int, depth: int) -> Made:
    autoregressive = import_module("nflows.transforms.autoregressive")
    turn = import_module("nflows.transforms.permutations").ReversePermutation

    def layer(columns: int, k: int) -> list[Any]:
        return [turn(columns), autoregressive.MaskedAffineAutoregressiveTransform(columns, width, num_blocks=depth)]

    return _nflows(layer, columns, layers)


def _nflows_nsf(columns: int, layers: int, width: int, depth: int) -> Made:
    coupling, lu = import_module("nflows.transforms.coupling"), import_module("nflows.transforms.lu")
    residual, mask = import_module("nflows.nn.nets").ResidualNet, import_module("nflows.utils.torchutils")

    def layer(columns: int, k: int) -> list[Any]:
        keep = mask.create_alternating_binary_mask(columns, even=k % 2 == 0)
        net = lambda i, o: residual(i, o, hidden_features=width, num_blocks=depth)  # noqa: E731
        spline = coupling.PiecewiseRationalQuadraticCouplingTransform(
            keep, net, num_bins=BINS, tails="linear", tail_bound=BOX
        )
        return [lu.LULinear(columns, identity_init=True), spline]

    return _nflows(layer, columns, layers)


def _normflows_nsf(columns: int, layers: int, width: int, depth: int) -> Made:
    package = import_module("normflows")
    steps: list[Any] = []
    for k in range(layers):
        spline = package.flows.CoupledRationalQuadraticSpline(
            columns, depth, width, num_bins=BINS, tail_bound=BOX, reverse_mask=k % 2 == 1
        )
        steps += [spline, package.flows.LULinearPermute(columns)]
    flow = package.NormalizingFlow(package.distributions.DiagGaussian(columns, trainable=False), steps)
    return flow, flow.log_prob, lambda n: flow.sample(n)[0]


RIVALS: dict[str, Callable[[int, int, int, int], Made]] = {
    "zuko_maf": lambda *sizes: _zuko("MAF", *sizes),
    "zuko_nsf": lambda *sizes: _zuko("NSF", *sizes),
    "nflows_maf": _nflows_maf,
    "nflows_nsf": _nflows_nsf,
    "normflows_nsf": _normflows_nsf,
}
