"""How the classifier of a joint model decides while a sample comes into being."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.applications.counterfactuals import joint_of
from genrep.contracts import Model, evaluating, seeded
from genrep.distributions.joint import GuidanceName
from genrep.distributions.samplers import SAMPLERS, SamplerName
from genrep.distributions.subchains import walked


class Decisions(NamedTuple):
    """p(y | x_t) at every step of n samples: t (S,) falling from 1, probabilities (S, n, classes), and the samples."""

    t: Tensor
    probabilities: Tensor
    samples: Tensor

    def target(self, y: Tensor) -> Tensor:
        """p(y_i | x_t) of each sample's own class y (n,), (S, n)."""
        return self.probabilities.gather(2, y.view(1, -1, 1).expand(len(self.t), -1, 1))[..., 0]


def decisions(
    model: Model,
    n: int,
    condition: Any,
    *,
    guidance: GuidanceName = "features",
    scale: float | None = None,
    sampler: SamplerName = "ddim",
    evaluations: int = 0,
    seed: int = 0,
) -> Decisions:
    """Draw n samples towards `condition` (a class or one for each) and ask the classifier at every step.

    The classifier reads x_t and t, as in training with noisy=True. One more pass of the encoder a step.
    """
    generative = joint_of(model)
    y = model.condition(condition, n, generative)
    used, found, times = generative.evaluations(sampler=sampler, evaluations=evaluations), [], []
    chain = generative.diffusion.chain.respaced(SAMPLERS[sampler].steps(used))
    diffusion = generative.guided(y, guidance, scale)

    def watch(x: Tensor, t: Tensor) -> None:
        times.append(float(t[0]))
        found.append(generative.label(x, t).probs.cpu())

    with torch.no_grad(), evaluating(model), seeded(seed):
        start = torch.randn(n, *model.data.shape, device=model.device)
        x = walked(diffusion, chain, start, y, sampler, watch)
    return Decisions(torch.tensor(times), torch.stack(found), model.domain.outward(x).cpu())
