"""How well a model removes noise from data it has not seen (Deja et al., 2022, section 5.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genrep.applications.splitting import diffusion_of
from genrep.contracts import Model, evaluating, seeded
from genrep.data.splits import Splits
from genrep.distributions.split import DenoisedDiffusion
from genrep.distributions.subchains import steps_to, until, walked
from genrep.evaluation.classification import check_examples
from genrep.evaluation.estimate import Estimate, estimate
from genrep.evaluation.features import examples
from genrep.evaluation.scores import absolute_error, ms_ssim

_BATCH = 256


class Transfer(NamedTuple):
    """Errors of noised and denoised examples: mean absolute error in units where the data span 2, and MS-SSIM."""

    steps: int  # that denoising took
    error: Estimate
    similarity: Estimate
    noised: Tensor  # a few, as the data set holds them
    denoised: Tensor


def denoise_foreign(
    model: Model, splits: Splits, beta_1: float = 0.1, *, examples_: int = 1000, shown: int = 16, seed: int = 0
) -> Transfer:
    """Noise test examples to abar = 1 - beta_1 and take the noise away again, with the same noise for every model.

    A model with a denoiser of its own (`daed`) takes one pass; another walks back the steps of its chain up to the one
    with the closest abar, drawing each of them. Raises ValueError for data of another shape or levels.
    """
    check_examples(model, splits)
    x, start, end, steps = examples(splits.test, examples_)[0], [], [], 0
    with torch.no_grad(), evaluating(model), seeded(seed):
        for part in x.split(_BATCH):
            noised, found, steps = _back(model, model.domain.inward(model.check(part)), beta_1)
            start.append(model.domain.outward(noised.clamp(-1, 1)).cpu())
            end.append(model.domain.outward(found).cpu())
    assert splits.spec.levels is not None
    top = splits.spec.levels - 1
    a, b = x.double() / top, torch.cat(end).double() / top
    window = min(11, (min(a.shape[2:]) - 1) // 2 * 2 + 1)
    error, similar = 2 * absolute_error(a, b), ms_ssim(a, b, window=window)
    protocol = {"data": splits.name, "split": "test", "beta_1": beta_1, "seed": seed}
    return Transfer(
        steps,
        _mean(error, {**protocol, "metric": "mean absolute error, range [-1, 1]"}),
        _mean(similar, {**protocol, "metric": f"MS-SSIM, window {window}"}),
        torch.cat(start)[:shown],
        torch.cat(end)[:shown],
    )


def _mean(values: Tensor, protocol: dict[str, object]) -> Estimate:
    return estimate(
        float(values.mean()), float(values.std()) / len(values) ** 0.5, n=(len(values), 0), protocol=protocol
    )


def _back(model: Model, x: Tensor, beta_1: float) -> tuple[Tensor, Tensor, int]:
    """x_k, its denoised version, both inside the domain, and the steps that took."""
    noise = torch.randn_like(x)
    if isinstance(model.generative, DenoisedDiffusion):
        chain = model.generative.whole.chain
        noised = chain.alpha[1] * x + chain.sigma[1] * noise
        return noised, model.generative.likelihood(noised).mean, 1
    diffusion = diffusion_of(model)
    k = steps_to(diffusion.chain.schedule, beta_1)
    chain = until(diffusion.chain, k)
    noised = chain.alpha[k] * x + chain.sigma[k] * noise
    return noised, walked(diffusion, chain, noised), k
