"""Diffusion models taken apart into a generator of noisy examples and a denoiser (Deja et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from genrep.contracts import Inference, Model, Unsupported
from genrep.data.splits import Splits
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.joint import JointDiffusion
from genrep.distributions.subchains import joined, steps_to
from genrep.evaluation.coverage import prdc
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.features import Extractor, examples
from genrep.evaluation.frechet import frechet_distance


def split(model: Model, beta_1: float) -> Model:
    """The same model with the steps up to x_k replaced by one denoising pass, abar_k the closest to 1 - beta_1.

    The generator draws x_k step by step, the network's estimate of x_0 there is the sample. With k = 1 nothing is
    replaced. What the model samples changes, its parameters are shared. Raises Unsupported for a model without a chain,
    ValueError for beta_1 outside (0, 1).
    """
    whole = diffusion_of(model)
    chain = joined(whole.chain, steps_to(whole.chain.schedule, beta_1))
    part = Diffusion(whole.denoiser, chain, whole.shape, whole.levels, guidable=whole.guidable)
    return Model(model.data, part, Inference(), domain=model.domain, training=model.training_options).eval()


def diffusion_of(model: Model) -> Diffusion:
    """The chain of a model that has one."""
    generative = model.generative.diffusion if isinstance(model.generative, JointDiffusion) else model.generative
    if not isinstance(generative, Diffusion):
        raise Unsupported("This needs a model that is a chain of denoising steps: train ddpm or joint_diffusion.")
    return cast(Diffusion, generative)


def log_snr(model: Model, beta_1: float) -> float:
    """log abar_k / (1 - abar_k) of the step at which `split` switches."""
    log = diffusion_of(model).chain.schedule
    at = log[steps_to(log, beta_1)]
    return float(at - torch.log(-torch.expm1(at)))


class Quality(NamedTuple):
    """Samples of a split model against test examples; `replaced`: steps that one pass stands for."""

    beta_1: float
    replaced: int
    log_snr: float
    frechet: Estimate
    precision: Estimate
    recall: Estimate


def quality_of_splits(
    model: Model,
    splits: Splits,
    extractor: Extractor,
    betas: Sequence[float],
    *,
    samples: int = 2000,
    examples_: int = 2000,
    seed: int = 0,
    **how: Any,
) -> list[Quality]:
    """Fréchet distance, precision and recall of the model split at each beta_1, and of the whole one (beta_1 = 0).

    All are drawn from the same noise and measured against the same test examples. `how`: sampling options.
    """
    model.require("sample")
    real = extractor(examples(splits.test, examples_)[0])
    condition = None
    if model.generative.reads_y:
        condition = examples(splits.test, samples)[1]
        assert condition is not None
        condition = condition[torch.arange(samples) % len(condition)]
    chain, found = diffusion_of(model).chain, []
    for beta in (0.0, *betas):
        part = split(model, beta) if beta else model
        x = part.sample(samples, condition=condition, seed=seed, **how).cpu()
        stated: Mapping[str, Any] = {"data": splits.name, "split": "test", **extractor.protocol, "beta_1": beta}
        frechet = frechet_distance(real=real, generated=(features := extractor(x)), protocol=stated, seed=seed)
        covered = prdc(real=real, generated=features, protocol=stated)
        replaced = steps_to(chain.schedule, beta) if beta else 0
        snr = log_snr(model, beta) if beta else float("inf")
        found.append(Quality(beta, replaced, snr, frechet, covered.precision, covered.recall))
    return found
