"""What a model says of log p(x), and what that number is: exact, a bound, or an estimate, with its own error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from genrep.contracts import Model, Way, evaluating, seeded
from genrep.distributions.dequantisation import Dequantised, UniformNoise
from genrep.evaluation.annealed import Start, annealed
from genrep.evaluation.bits import bits_per_dimension, log_mean_exp, nats_per_example
from genrep.evaluation.estimate import Estimate
from genrep.naming import choose

_REPEATED = 200  # examples that are evaluated twice, for the Monte-Carlo error
_BATCH = 128


BY_MODEL = ("kind", "method", "evaluations", "draws", "dequantisation", "monte_carlo_error", "options")
"""Keys of a protocol that say how a likelihood was found: an order between exact values and bounds may cross them."""


class Likelihood(NamedTuple):
    """log p(x) of N examples and what it takes to compare it; only masses over the same levels compare.

    kind: "exact"; "lower bound"; "importance-weighted bound" of `draws` (Burda et al., 2016), which rises with them;
    "ODE estimate"; "annealed estimate" of `draws` chains, a lower bound on average; or "estimate".
    """

    nats: Tensor  # (N,)
    kind: str
    measure: str  # mass, or density
    method: str
    size: int  # values in one example
    levels: int | None  # None: real-valued data
    draws: int  # K: of the latent, of the dequantisation, or chains
    evaluations: int  # of the network, for each example
    dequantisation: str  # none; uniform or variational: a density was averaged over the cell of each level
    monte_carlo_error: float  # of the mean over examples, nats: what other draws would have changed
    stated: dict[str, Any]  # what else the method says

    def estimate(
        self,
        protocol: Mapping[str, Any] | None = None,
        *,
        unit: Literal["auto", "bits", "nats"] = "auto",
        level: float = 0.95,
    ) -> Estimate:
        """Bits per dimension, only of a mass, or minus nats per example; everything else is in the protocol."""
        bits = unit == "bits" or (unit == "auto" and self.measure == "mass")
        if bits and self.measure != "mass":
            raise ValueError("Bits per dimension are of masses over levels, and this is a density; ask for nats.")
        scale = self.size * math.log(2) if bits else 1.0
        said = {
            **(protocol or {}),
            "kind": self.kind,
            "measure": self.measure,
            "method": self.method,
            "levels": self.levels,
            "bit_depth": None if self.levels is None else math.log2(self.levels),
            "draws": self.draws,
            "evaluations": self.evaluations,
            "dequantisation": self.dequantisation,
            "monte_carlo_error": self.monte_carlo_error / scale,
            "options": self.stated,
        }
        if bits:
            return bits_per_dimension(self.nats, self.size, protocol=said, level=level)
        return nats_per_example(self.nats, protocol=said, level=level)


def methods(model: Model) -> list[str]:
    """Ways to the likelihood of a model, the default first; `annealed` is for latent-variable models only."""
    return [*model.generative.likelihoods(model.inference), "annealed"]


def likelihood(
    model: Model,
    x: Tensor,
    *,
    condition: Tensor | None = None,
    method: str = "auto",
    draws: int | None = None,
    temperatures: int = 500,
    leapfrog: int = 10,
    start: Start = "prior",
    batch: int = _BATCH,
    seed: int | None = None,
    **how: Any,
) -> Likelihood:
    """log p(x) of x as the data set holds it, in batches; memory does not grow with `draws`.

    Args:
        model: In any mode; it is evaluated in eval mode.
        x: (N, *x).
        condition: Of each example, where the model reads one.
        method: One of the model's own, `annealed`, or auto: the first of its own.
        draws: K of importance weights, of averaged bounds, of points in the cell of a level (whose densities are
            averaged before the logarithm: importance-weighted dequantisation, Ho et al., 2019), or of chains. None:
            the default of the method.
        temperatures: Of annealing.
        leapfrog: Steps of every proposal in annealing.
        start: Of annealing: prior or posterior.
        batch: Examples at a time.
        seed: Of all draws; None goes on with the global generator.
        **how: Options of the method.
    """
    if draws is not None and draws < 1:
        raise ValueError(f"Expected at least 1 draw, got {draws}.")
    if method == "annealed":
        with seeded(seed):
            return _annealed(model, x, condition, draws or 16, temperatures, leapfrog, start)
    model.require("log_likelihood")
    ways = model.generative.likelihoods(model.inference)
    name = next(iter(ways)) if method == "auto" else choose(method, methods(model), "method of this model")
    plan = _plan(model, name, ways[name], draws, how)

    def run(count: int) -> Tensor:
        parts = [slice(i, min(i + batch, count)) for i in range(0, count, batch)]
        return torch.cat([plan.run(x[p], None if condition is None else condition[p]).cpu() for p in parts])

    with torch.no_grad(), evaluating(model), seeded(seed):
        nats = run(len(x))
        again = run(min(len(x), _REPEATED)) if plan.random else nats[:_REPEATED]
    one = (nats[: len(again)] - again).double().square().mean() / 2  # the variance of one evaluation
    return Likelihood(
        nats,
        plan.kind,
        plan.measure,
        name,
        model.data.size,
        model.data.levels,
        plan.draws,
        plan.evaluations,
        plan.dequantisation,
        float((one / len(nats)).sqrt()),
        plan.how,
    )


class _Plan(NamedTuple):
    run: Callable[[Tensor, Tensor | None], Tensor]
    kind: str
    measure: str
    random: bool
    draws: int
    evaluations: int
    dequantisation: str
    how: dict[str, Any]


def _plan(model: Model, name: str, way: Way, draws: int | None, how: dict[str, Any]) -> _Plan:
    """How often a method runs, and what its number is then."""
    options = inspect.signature(way.f).parameters
    for option in how:
        choose(option, [k for k, p in options.items() if p.kind is p.KEYWORD_ONLY], f"option of method {name}")
    own = "draws" in options  # the method averages draws itself
    noisy = way.measure == "density" and model.data.levels is not None  # a point is drawn in the cell of each level
    k = draws or (options["draws"].default if own else 1)
    if draws is not None and draws > 1 and not own and not noisy and way.kind == "exact":
        raise ValueError(f"Method {name} is exact and draws nothing; leave draws out.")
    kind, measure = way.kind, "mass" if noisy else way.measure
    if name == "importance":
        kind = "importance-weighted bound"
    elif name == "ode":
        kind = "ODE estimate"
    elif noisy and way.kind == "exact":
        kind = "lower bound" if k == 1 else "importance-weighted bound"
    how = {**how, "draws": k} if own else how

    def run(x: Tensor, y: Tensor | None) -> Tensor:
        once = [model.log_likelihood(x, condition=y, method=name, **how).value for _ in range(1 if own else k)]
        values = torch.stack(once)
        return log_mean_exp(values, 0) if way.kind == "exact" else values.mean(0)

    evaluations = int(how.get("evaluations") or options["evaluations"].default) if "evaluations" in options else 1
    evaluations = evaluations or model.generative.evaluations()
    random = noisy or way.kind != "exact"
    said = {key: value for key, value in how.items() if key not in ("draws", "evaluations")}
    return _Plan(run, kind, measure, random, k, evaluations * k, _dequantisation(model, noisy=noisy), said)


def _dequantisation(model: Model, *, noisy: bool) -> str:
    """none, or the law of the point within the cell of each level."""
    if isinstance(model.generative, Dequantised):
        return "uniform" if isinstance(model.generative.noise, UniformNoise) else "variational"
    return "uniform" if noisy else "none"


def _annealed(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    chains: int,
    temperatures: int,
    leapfrog: int,
    start: Start,
) -> Likelihood:
    x, y = model.check(x), model.condition(condition, len(x))
    noisy = model.generative.measure == "density" and model.data.levels is not None
    inside, slope = model.domain.continuous(x) if model.generative.measure == "density" else (model.domain.inward(x), 0)
    how: dict[str, Any] = {"temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    weights, acceptance = annealed(model, inside, y, chains=chains, **how)
    nats = (log_mean_exp(weights, 0) + slope).cpu()
    relative = (weights - log_mean_exp(weights, 0)).exp().double()
    # the delta method: the variance of the log of a mean of K weights is about var(w / mean w) / K
    variance = float((relative.var(0) / chains).mean()) if chains > 1 else math.nan
    # tuning walks four chains more; every transition costs leapfrog + 1 gradients and one value
    evaluations = (chains + 4) * temperatures * (leapfrog + 2)
    measure = "mass" if noisy else model.generative.measure
    return Likelihood(
        nats,
        "annealed estimate",
        measure,
        "annealed",
        model.data.size,
        model.data.levels,
        chains,
        evaluations,
        "uniform" if noisy else "none",
        math.sqrt(variance / len(nats)),
        {**how, "acceptance": acceptance},
    )
