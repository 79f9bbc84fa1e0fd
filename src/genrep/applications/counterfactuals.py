"""What would have to change in an example for the classifier to decide otherwise."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from genrep.contracts import Model, Unsupported, evaluating, seeded
from genrep.distributions.joint import GuidanceName, JointDiffusion
from genrep.distributions.samplers import SamplerName
from genrep.distributions.subchains import until, walked
from genrep.evaluation.classification import probabilities

NOISE = 0.2  # share of the chain, as in Deja et al. (2023), section 6.6.6 of the thesis
_BATCH = 256


class Counterfactuals(NamedTuple):
    """Originals, noised and changed examples as the data set holds them; p(y | x) of originals and of the changed."""

    original: Tensor
    noised: Tensor
    changed: Tensor
    target: Tensor  # (N,) int64
    before: Tensor  # (N, classes)
    after: Tensor

    @property
    def flipped(self) -> Tensor:
        """Whether the classifier decides for the target now, (N,)."""
        return self.after.argmax(1) == self.target


def counterfactuals(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    noise: float = NOISE,
    guidance: GuidanceName = "features",
    scale: float | None = None,
    sampler: SamplerName = "ancestral",
    seed: int = 0,
) -> Counterfactuals:
    """Noise x to that share of the chain, then denoise it towards the classes `target`.

    x (N, *shape) as the data set holds it, target (N,). With scale 0 what changes is what noise and denoising change
    of themselves. Raises Unsupported for a model without a joint classifier, ValueError for noise outside (0, 1].
    """
    generative = joint_of(model)
    if not 0 < noise <= 1:
        raise ValueError(f"Expected noise in (0, 1], the share of the chain, got {noise}.")
    y = model.condition(target, len(x), generative)
    assert y is not None
    chain, noised, changed = generative.diffusion.chain, [], []
    begin = until(chain, max(1, round(noise * chain.steps)))
    with torch.no_grad(), evaluating(model), seeded(seed):
        for part, label in zip(model.check(x).split(_BATCH), y.split(_BATCH), strict=True):
            inside = model.domain.inward(part)
            start = begin.alpha[-1] * inside + begin.sigma[-1] * torch.randn_like(inside)
            diffusion = generative.guided(label, guidance, scale)
            noised.append(model.domain.outward(start.clamp(-1, 1)).cpu())
            changed.append(model.domain.outward(walked(diffusion, begin, start, label, sampler)).cpu())
    after = torch.cat(changed)
    return Counterfactuals(
        x.cpu(), torch.cat(noised), after, y.cpu(), probabilities(model, x), probabilities(model, after)
    )


def joint_of(model: Model) -> JointDiffusion:
    """The generative part, if it shares its encoder with a classifier."""
    if not isinstance(model.generative, JointDiffusion):
        raise Unsupported("This needs a model that generates and classifies with one network: train joint_diffusion.")
    return cast(JointDiffusion, model.generative)


def others(y: Tensor, classes: int) -> Tensor:
    """Another class for each: of two the other one, of more the next.

    >>> others(torch.tensor([0, 1, 2]), 3)
    tensor([1, 2, 0])
    """
    return (y + 1) % classes
