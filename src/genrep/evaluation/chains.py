"""What the steps of a diffusion model do: signal against noise, what can be undone, where the bound lies, who decides.

Functions of a model whose generative part is a chain (`Diffusion`); times are t = k / T of its steps k = 1..T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genrep.contracts import Model, Unsupported, evaluating, seeded
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.samplers import SAMPLERS, Denoised, SamplerName
from genrep.distributions.schedules import Chain
from genrep.evaluation.scores import absolute_error, ms_ssim

_BATCH = 256
Way = Literal["estimate", "chain"]


def chain_of(model: Model) -> Diffusion:
    """Its generative part, or Unsupported where that is not a chain."""
    if not isinstance(model.generative, Diffusion):
        raise Unsupported("This analysis needs a chain of Gaussian steps: ddpm, edm, or score_sde with one part.")
    return model.generative


def same_shape(model: Model, x: Tensor, name: str) -> Tensor:
    """x, or a ValueError where foreign data do not look like the model's."""
    if tuple(x.shape[1:]) != model.data.shape:
        raise ValueError(
            f"Expected foreign data of shape {model.data.shape}, as the model's, got {tuple(x.shape[1:])} from {name}: "
            "choose another set, or give one of that shape: genrep.data.load(name, shape=...)."
        )
    return model.check(x)


class SignalToNoise(NamedTuple):
    """log SNR of each step over a data set, (T,) each, and its change to the next step, (T - 1,)."""

    mean: Tensor
    std: Tensor
    change: Tensor


def signal_to_noise(model: Model, x: Tensor) -> SignalToNoise:
    """log(abar_k m / (1 - abar_k)), m the mean square of an example, over examples x as the data set holds them.

    The thesis that introduced this view (Deja, 2023, eq. 5.2) has the square of every value; its mean over an example
    keeps dark pixels, whose logarithm is minus infinity, from deciding.
    """
    chain = chain_of(model).chain
    power = model.domain.inward(model.check(x)).flatten(1).square().mean(1).double()
    signal = power[power > 0].log()
    if not len(signal):
        raise ValueError("Expected examples that are not zero everywhere inside the model.")
    ratio = 2 * (chain.alpha[1:].double().log() - chain.sigma[1:].double().log())
    mean = ratio + signal.mean()
    return SignalToNoise(mean.cpu(), signal.std(correction=0).expand(len(ratio)).cpu(), mean.diff().cpu())


class Errors(NamedTuple):
    """Of each example at each step, (S, B): mean absolute error and MS-SSIM on the range [0, 1]."""

    steps: Tensor  # (S,)
    absolute: Tensor
    similarity: Tensor


def reconstruction(
    model: Model, x: Tensor, steps: Sequence[int], *, way: Way = "chain", evaluations: int = 10, seed: int = 0
) -> Errors:
    """How well x_k is turned back into x, at the given steps k; x images over levels, as the data set holds them.

    chain: by the reverse chain from k to 0, in at most `evaluations` of its steps. estimate: by the denoiser's estimate
    of x_0, one evaluation. A conditional model reads an unknown condition.
    """
    diffusion, levels = chain_of(model), model.data.levels
    if len(model.data.shape) != 3 or levels is None:
        raise Unsupported("Errors of reconstruction are measured on images over levels.")
    bad = [k for k in steps if not 1 <= k <= diffusion.chain.steps]
    if bad:
        raise ValueError(f"Expected steps in 1..{diffusion.chain.steps}, got {bad}.")
    x, unit = model.check(x), levels - 1
    window = min(11, (min(model.data.shape[1:]) - 1) // 2 * 2 + 1)
    absolute, similarity = [], []
    with torch.no_grad(), evaluating(model), seeded(seed):
        for k in steps:
            back = torch.cat([_undone(model, diffusion, part, k, way, evaluations) for part in x.split(_BATCH)])
            a, b = x.cpu().double() / unit, back.cpu().double() / unit
            absolute.append(absolute_error(a, b))
            similarity.append(ms_ssim(a, b, window=window))
    return Errors(torch.tensor(list(steps)), torch.stack(absolute), torch.stack(similarity))


def _undone(model: Model, diffusion: Diffusion, x: Tensor, k: int, way: Way, evaluations: int) -> Tensor:
    chain, inside = diffusion.chain, model.domain.inward(x)
    noisy = chain.at("alpha", k, inside) * inside + chain.at("sigma", k, inside) * torch.randn_like(inside)
    y = unknown(model, len(x))
    if way == "estimate":
        return model.domain.outward(diffusion.denoise(noisy, chain.t[k].float().expand(len(x)), y).mean)
    part = Chain(chain.schedule[: k + 1], chain.times[: k + 1]).to(chain.t).respaced(min(k, evaluations))
    return model.domain.outward(SAMPLERS["ancestral"].walk(diffusion.along(part, y), noisy, part))


def unknown(model: Model, n: int) -> Tensor | None:
    """The unknown condition of n examples, None for a model that reads none."""
    if not model.generative.reads_y:
        return None
    if model.data.classes:
        return torch.full((n,), -1, device=model.device)
    return torch.zeros(n, model.data.condition, device=model.device)


class Switch(NamedTuple):
    """The time t at which two curves part, with an interval; nan: they do not."""

    t: float
    low: float
    high: float


def switching_point(
    t: Tensor, own: Tensor, foreign: Tensor, *, margin: float = 0.01, draws: int = 400, seed: int = 0
) -> Switch:
    """The first t from which on the mean error on foreign data exceeds that on own data by more than `margin`.

    t (S,) ascending; errors (S, B) and (S, B'). Linear between the steps. The interval is the central 95 % over
    resampled examples of both sets; a bound is nan where the curves of as many resamples do not part.
    """
    generator = torch.Generator().manual_seed(seed)

    def crossing(a: Tensor, b: Tensor) -> float:
        gap = b.mean(1) - a.mean(1) - margin
        below = (gap <= 0).nonzero()
        if not len(below):
            return float(t[0])
        last = int(below[-1])
        if last + 1 == len(t):
            return float("inf")
        share = -gap[last] / (gap[last + 1] - gap[last])
        return float(t[last] + share * (t[last + 1] - t[last]))

    def again(e: Tensor) -> Tensor:
        return e[:, torch.randint(e.shape[1], (e.shape[1],), generator=generator)]

    found = sorted(crossing(again(own), again(foreign)) for _ in range(draws))
    low, high = (found[min(draws - 1, round(q * (draws - 1)))] for q in (0.025, 0.975))
    finite = lambda v: v if v < float("inf") else float("nan")  # noqa: E731
    return Switch(finite(crossing(own, foreign)), finite(low), finite(high))


def bound_terms(model: Model, x: Tensor, *, condition: Tensor | None = None, seed: int = 0) -> Tensor:
    """Mean term of the bound of every step, and of the prior last, (T + 1,) nats per example."""
    diffusion, x = chain_of(model), model.check(x)
    y = model.condition(condition, len(x))
    total = torch.zeros(diffusion.chain.steps + 1, dtype=torch.float64)
    with torch.no_grad(), evaluating(model), seeded(seed):
        for part in torch.arange(len(x)).split(_BATCH):
            terms = diffusion.vlb_terms(model.domain.inward(x[part]), None if y is None else y[part])
            total += terms.double().sum(1).cpu()
    return total / len(x)


class Decisions(NamedTuple):
    """What a classifier makes of the estimates of x_0 on the way: times (S,), class probabilities (S, n, C)."""

    t: Tensor
    probabilities: Tensor

    @property
    def agreement(self) -> Tensor:
        """Share of the samples whose class is the final one already, (S,)."""
        chosen = self.probabilities.argmax(2)
        return (chosen == chosen[-1]).double().mean(1)

    @property
    def confidence(self) -> Tensor:
        """Mean probability of the likeliest class, (S,)."""
        return self.probabilities.amax(2).double().mean(1)


def decisions(
    model: Model,
    classify: Callable[[Tensor], Tensor],
    n: int,
    *,
    condition: Tensor | None = None,
    sampler: SamplerName = "ddim",
    evaluations: int = 50,
    seed: int = 0,
) -> Decisions:
    """Draw n samples, and classify the estimate of x_0 at every evaluation; `classify`: examples -> probabilities."""
    diffusion, times, found = chain_of(model), [], []
    y = model.condition(condition, n)
    used = diffusion.evaluations(sampler=sampler, evaluations=min(evaluations, diffusion.chain.steps))
    how = SAMPLERS[sampler]
    chain = diffusion.chain.respaced(how.steps(used), "log_snr" if how.spaced else "time")
    denoise = diffusion.along(chain, y)

    def watched(x: Tensor, k: int | Tensor) -> Denoised:
        estimate = denoise(x, k)
        times.append(float(chain.t[k] if isinstance(k, int) else diffusion.chain.time_of(k)))
        found.append(classify(model.domain.outward(estimate.mean)).cpu())
        return estimate

    with torch.no_grad(), evaluating(model), seeded(seed):
        how.walk(watched, torch.randn(n, *diffusion.shape, device=chain.t.device, dtype=chain.t.dtype), chain)
    return Decisions(torch.tensor(times), torch.stack(found))
