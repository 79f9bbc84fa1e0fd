"""Annealed importance sampling of log p(x) in latent-variable models, and its check from both sides.

The chain walks from f_0, a density over z that can be drawn and scored, to f_1(z) = p(z) p(x | z) along

    log f_b(z) = (1 - b) log f_0(z) + b log f_1(z),    0 = b_0 < ... < b_T = 1,

with Hamiltonian transitions that leave f_b invariant. w = prod_t f_{b_t}(z_{t-1}) / f_{b_{t-1}}(z_{t-1}) has mean p(x),
so E log mean w <= log p(x). Walked backwards from an exact posterior draw the mean is 1 / p(x): an upper bound.

References: Neal (2001), section 2; Grosse, Ghahramani & Adams (2015) for both sides; Wu et al. (2017) for decoders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution

from genrep.contracts import Model, Unsupported, evaluating
from genrep.distributions.latent import LatentVariable
from genrep.evaluation.bits import log_mean_exp

Density = Callable[[Tensor], Tensor]  # log f(z), (K, B, *z) -> (K, B)
Start = Literal["prior", "posterior"]
_WANTED = 0.65  # share of proposals accepted: the optimum of Hamiltonian dynamics (Neal, 2011, section 4.4)
_CHANGE = 1.03  # of the step after every temperature while it is tuned
_TUNING = 4  # chains of an example that share a step while it is tuned
_MOST = 2048  # chains walked at a time: bounds the memory


class Chains(NamedTuple):
    z: Tensor  # (K, B, *z) where they ended
    log_weight: Tensor  # (K, B)
    acceptance: float
    steps: Tensor  # (T - 1, B) sizes used at each temperature between the ends


def temperatures_of(number: int) -> Tensor:
    """(T + 1,) from 0 to 1, close together at both ends: a logistic curve over [-4, 4] (Wu et al., 2017, appendix).

    >>> temperatures_of(2).tolist()
    [0.0, 0.5, 1.0]
    """
    if number < 1:
        raise ValueError(f"Expected at least 1 temperature, got {number}.")
    s = torch.linspace(-4, 4, number + 1, dtype=torch.float64).sigmoid()
    return (s - s[0]) / (s[-1] - s[0])


def anneal(
    z: Tensor, log_from: Density, log_to: Density, temperatures: Tensor, *, leapfrog: int, steps: Tensor | None = None
) -> Chains:
    """Walk chains z (K, B, *z) along the temperatures, up or down; z is drawn from the density at the first.

    `steps` (T - 1, B): sizes of the leapfrog steps; None tunes them on the way towards an acceptance of 0.65, after
    which the weights are no longer unbiased: use the sizes that come back with fresh chains.
    """
    if leapfrog < 1:
        raise ValueError(f"Expected at least 1 leapfrog step, got {leapfrog}.")
    size, used, accepted = torch.full(z.shape[1:2], 0.1, dtype=z.dtype, device=z.device), [], []
    weight = z.new_zeros(z.shape[:2])
    path = temperatures.to(z)
    for t in range(1, len(path)):
        with torch.no_grad():
            weight = weight + (path[t] - path[t - 1]) * (log_to(z) - log_from(z))
        if t + 1 == len(path):
            break
        now = size if steps is None else steps[t - 1]
        z, probability = _transition(z, _between(log_from, log_to, path[t]), now, leapfrog)
        used.append(now)
        accepted.append(float(probability.mean()))
        if steps is None:
            grows = probability.mean(0) > _WANTED
            size = torch.where(grows, size * _CHANGE, size / _CHANGE)
    acceptance = sum(accepted) / len(accepted) if accepted else math.nan
    return Chains(z, weight, acceptance, torch.stack(used) if used else z.new_zeros(0, z.shape[1]))


def _between(log_from: Density, log_to: Density, b: Tensor) -> Density:
    return lambda z: (1 - b) * log_from(z) + b * log_to(z)


def _transition(z: Tensor, log_density: Density, step: Tensor, leapfrog: int) -> tuple[Tensor, Tensor]:
    """One Hamiltonian proposal, accepted or not, and the probabilities of acceptance (K, B)."""

    def pulled(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            value = log_density(at)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), gradient

    def energy(value: Tensor, momentum: Tensor) -> Tensor:
        return 0.5 * momentum.square().flatten(2).sum(2) - value

    momentum, h = torch.randn_like(z), step.view(1, -1, *[1] * (z.ndim - 2))
    value, gradient = pulled(z)
    before, new = energy(value, momentum), z
    for _ in range(leapfrog):
        momentum = momentum + 0.5 * h * gradient
        new = new + h * momentum
        value, gradient = pulled(new)
        momentum = momentum + 0.5 * h * gradient
    change = energy(value, momentum) - before
    # a path that left the numbers has no density: it is refused, as the Metropolis rule has it
    probability = torch.where(change.isfinite(), (-change).exp().clamp(max=1), 0.0)
    taken = torch.rand_like(probability) < probability
    return torch.where(taken.view(*taken.shape, *[1] * (z.ndim - 2)), new, z), probability


class Ends(NamedTuple):
    """Both ends of the path for a batch of examples."""

    draw: Callable[[int], Tensor]  # (K,) draws of the first density, (K, B, *z)
    log_from: Density
    log_to: Density


def ends(model: Model, x: Tensor, y: Tensor | None, start: Start) -> Ends:
    """From the prior, or from the approximate posterior, to p(z) p(x | z); x is inside the domain, (B, *x).

    Raises Unsupported where the model has no prior and likelihood that can be scored over one continuous latent.
    """
    generative = model.generative
    if start not in get_args(Start):
        raise ValueError(f"Expected start of prior or posterior, got {start!r}.")
    if not isinstance(generative, LatentVariable) or "improper" in (generative.measure, generative.prior.measure):
        raise Unsupported("Annealed importance sampling needs a prior and a likelihood that can be scored.")
    prior: Distribution = generative.prior(y=y)
    first: Distribution = prior
    if start == "posterior":
        if "latent" not in model.inference or model.inference.latent.measure == "improper":
            raise Unsupported("Annealing from the posterior needs an inference.latent with a density; start=prior.")
        first = model.inference.latent(x, y=y)

    def draw(k: int) -> Tensor:
        z = first.sample((k,) if first.batch_shape else (k, len(x)))
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise Unsupported("Annealed importance sampling needs one continuous latent; this model's is not.")
        return z

    def joint(z: Tensor) -> Tensor:
        k = len(z)
        repeated = x.repeat(k, *[1] * (x.ndim - 1))
        conditions = None if y is None else y.repeat(k, *[1] * (y.ndim - 1))
        likelihood = generative.likelihood(z.flatten(0, 1), y=conditions).log_prob(repeated)
        return likelihood.view(k, -1) + prior.log_prob(z)

    return Ends(draw, first.log_prob, joint)


def annealed(
    model: Model,
    x: Tensor,
    y: Tensor | None = None,
    *,
    chains: int = 16,
    temperatures: int = 500,
    leapfrog: int = 10,
    start: Start = "prior",
) -> tuple[Tensor, float]:
    """log p(x) in nats of x inside the domain: log-weights (K, B) of K chains each, and the acceptance.

    `log_mean_exp` over K gives the estimate, a lower bound on average. Steps are tuned by other chains first.
    """
    if chains < 1:
        raise ValueError(f"Expected at least 1 chain, got {chains}.")
    path, weights, accepted = temperatures_of(temperatures), [], []
    with evaluating(model):
        for part in _parts(len(x), chains):
            both = ends(model, x[part], None if y is None else y[part], start)
            found = _walk(both, path, chains, leapfrog)
            weights.append(found.log_weight)
            accepted.append(found.acceptance)
    return torch.cat(weights, 1), sum(accepted) / len(accepted)


def _parts(n: int, chains: int) -> list[slice]:
    size = max(1, _MOST // chains)
    return [slice(i, i + size) for i in range(0, n, size)]


def _tuned(both: Ends, path: Tensor, leapfrog: int) -> Tensor:
    return anneal(both.draw(_TUNING), both.log_from, both.log_to, path, leapfrog=leapfrog).steps


def _walk(both: Ends, path: Tensor, chains: int, leapfrog: int) -> Chains:
    steps = _tuned(both, path, leapfrog)
    return anneal(both.draw(chains), both.log_from, both.log_to, path, leapfrog=leapfrog, steps=steps)


class Bracket(NamedTuple):
    """log p(x), (N,) nats, of examples that the model drew itself: from below and from above, on average."""

    lower: Tensor
    upper: Tensor


def bidirectional(
    model: Model,
    n: int = 50,
    *,
    condition: Tensor | None = None,
    chains: int = 16,
    temperatures: int = 500,
    leapfrog: int = 10,
    start: Start = "prior",
) -> Bracket:
    """Annealing from both ends on n simulated examples, whose z is an exact posterior draw (Grosse et al., 2015).

    The mean of upper - lower bounds what annealing is off by, on data like the model's own samples.
    """
    path, lower, upper = temperatures_of(temperatures), [], []
    with evaluating(model):
        for part in _parts(n, chains):
            size = len(range(n)[part])
            y = None if condition is None else condition[part]
            z, x = _simulated(model, size, y)
            both = ends(model, x, y, start)
            steps = _tuned(both, path, leapfrog)
            up = anneal(both.draw(chains), both.log_from, both.log_to, path, leapfrog=leapfrog, steps=steps)
            from_end = z.expand(chains, *z.shape).clone()
            down = anneal(from_end, both.log_from, both.log_to, path.flip(0), leapfrog=leapfrog, steps=steps.flip(0))
            lower.append(log_mean_exp(up.log_weight, 0))
            upper.append(-log_mean_exp(down.log_weight, 0))
    return Bracket(torch.cat(lower), torch.cat(upper))


def _simulated(model: Model, n: int, y: Tensor | None) -> tuple[Tensor, Tensor]:
    generative = model.generative
    if not isinstance(generative, LatentVariable):
        raise Unsupported("Annealed importance sampling needs a prior and a likelihood that can be scored.")
    with torch.no_grad():
        prior = generative.prior(y=y)
        z = prior.sample(() if prior.batch_shape else (n,))
        return z, generative.likelihood(z, y=y).sample()
