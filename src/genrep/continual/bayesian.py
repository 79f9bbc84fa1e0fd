"""Weights with a mean-field Gaussian posterior q(w) = prod_i N(m_i, s_i)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genrep.continual.penalty import Slots
from genrep.contracts import Batch, Model, Objective, Terms, Unsupported
from genrep.distributions.basic import Gaussian, kl

_FASTER = 10.0  # log s learns so many times as fast as m: importance must have been found when a task ends


class Noisy(nn.Module):
    """m -> m + s e, e ~ N(0, I), at every use in train mode, and m itself otherwise; it holds (log s) / 10."""

    def __init__(self, like: Tensor, std: float) -> None:
        super().__init__()
        self.scaled = nn.Parameter(torch.full_like(like, math.log(std) / _FASTER))

    @property
    def log_std(self) -> Tensor:
        return _FASTER * self.scaled

    def forward(self, mean: Tensor) -> Tensor:
        return mean + self.log_std.exp() * torch.randn_like(mean) if self.training else mean


def weighted(module: nn.Module) -> list[str]:
    """Paths of the modules that hold weights of their own, in the order of registration."""
    return [name for name, m in module.named_modules() if any(True for _ in m.parameters(recurse=False))]


def randomise(modules: Iterable[nn.Module], std: float) -> None:
    """Give every weight of these modules a posterior around it, in place; what they hold themselves, not below."""
    if not std > 0:
        raise ValueError(f"Expected a standard deviation > 0, got {std}.")
    for module in modules:
        if isinstance(module, parametrize.ParametrizationList):
            raise Unsupported(
                "Weights that are functions of others already, as under a spectral norm, stay as they are."
            )
        for name, p in list(module.named_parameters(recurse=False)):
            parametrize.register_parametrization(module, name, Noisy(p.detach(), std))


def posteriors(module: nn.Module) -> list[Gaussian]:
    """q of every weight that has one, flat, each once."""
    found: list[Gaussian] = []
    for part in module.modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(noise := part[0], Noisy):
            mean = cast(Tensor, part.original)
            found.append(Gaussian(mean.flatten(), noise.log_std.flatten(), batched=False))
    return found


class WeightRate(Objective):
    """KL(q(w) || p(w)) / n, () nats, n the examples of the task and p(w) what q(w) was when the task began.

    Beside the model's own loss, a mean over examples, this makes the variational free energy of the task over n: with
    q_t the posterior after task t, q_t = argmin E_q[-log p(D_t | w)] + KL(q || q_{t-1}) (Nguyen et al., 2018).
    """

    def __init__(self, module: nn.Module, weight: float, n: int = 1) -> None:
        if not weight > 0:
            raise ValueError(f"Expected weight > 0, got {weight}.")
        self.terms = {"weights": weight}
        super().__init__(learns=())
        self.module, self.n = (module,), n  # in a tuple: it is part of the phase's model already
        self.mean, self.log_std = (Slots([q.mean.detach() for q in posteriors(module)]) for _ in range(2))

    def start_from(self, std: float | None) -> None:
        """The prior is N(0, std), or for None the posterior as it is now."""
        now = posteriors(self.module[0])
        self.mean.set([torch.zeros_like(q.mean) if std else q.mean for q in now])
        self.log_std.set([torch.full_like(q.mean, math.log(std)) if std else q.log_std for q in now])

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        each: list[Tensor] = []
        for q, m, s in zip(posteriors(self.module[0]), self.mean.tensors, self.log_std.tensors, strict=True):
            closed = kl(q, Gaussian(m, s, batched=False))
            assert closed is not None
            each.append(closed)
        return {"weights": torch.stack(each).sum() / self.n}
