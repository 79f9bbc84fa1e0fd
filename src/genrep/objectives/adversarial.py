"""Two players: a critic tells data from samples, and the generative part learns to mislead it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.latent import draws
from genrep.nets.condition import encode_condition

LossName = Literal["non_saturating", "hinge", "wasserstein_gp"]


class Loss(NamedTuple):
    """What each player minimises, per example, as a function of the critic's scores."""

    real: Callable[[Tensor], Tensor]  # the critic on data
    fake: Callable[[Tensor], Tensor]  # the critic on samples
    generator: Callable[[Tensor], Tensor]


LOSSES: dict[LossName, Loss] = {
    "non_saturating": Loss(lambda s: F.softplus(-s), F.softplus, lambda s: F.softplus(-s)),
    "hinge": Loss(lambda s: F.relu(1 - s), lambda s: F.relu(1 + s), torch.neg),
    "wasserstein_gp": Loss(torch.neg, lambda s: s, torch.neg),
}


class Critic(nn.Module):
    """A score for every example, (B,) float32; `condition` is the width of y, 0 if unread."""

    def __init__(self, net: nn.Module, condition: int = 0) -> None:
        super().__init__()
        self.net, self.condition_width = net, condition

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        c = encode_condition(y, self.condition_width, x) if self.condition_width else None
        return self.net(x, c).float().flatten()


def gradient_penalty(critic: Callable[..., Tensor], real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
    """(|grad_x D(x)| - 1)^2 at a uniform point between each pair, (B,) (Gulrajani et al., 2017, eq. 3).

    On a line, a weight above half the Wasserstein distance holds a critic of the wrong sign at slope -1; in more
    dimensions slopes can turn. Piecewise linear critics get a biased gradient of it: their kinks do not feel it.
    """
    u = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    between = torch.lerp(fake, real, u).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between, y).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square()


class Adversarial(Objective):
    """The generative part against a critic D, in alternate updates (Goodfellow et al., 2014, eq. 1).

    non_saturating: the critic minimises softplus(-D(x)) + softplus(D(G(z))), at its best log 4 - 2 JS(data, samples),
    the generator softplus(-D(G(z))). hinge: relu(1 - D(x)) + relu(1 + D(G(z))) against -D(G(z)) (Lim & Ye, 2017).
    `accuracy` is P(D(x) > D(G(z))), logged only; 1/2 where the critic is blind.
    """

    terms = {"critic": 1.0, "generator": 1.0, "accuracy": 0.0}
    turns = ("critic", "model")

    def __init__(self, critic: Critic, loss: LossName = "non_saturating") -> None:
        super().__init__(learns=("generative",))
        self.critic, self.loss = critic, LOSSES[loss]
        self.learns["critic"] = ("objective.critic",)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        prior, likelihood = (model.generative.get_submodule(name) for name in ("prior", "likelihood"))
        with torch.set_grad_enabled(player == "model"):
            fake = likelihood(draws(prior(y=batch.y), len(batch.x)), y=batch.y).rsample()
        if player == "model":
            return {"generator": self.loss.generator(self.critic(fake, batch.y))}
        return self.judge(model.domain.inward(batch.x), fake, batch.y)

    def judge(self, real: Tensor, fake: Tensor, y: Tensor | None) -> Terms:
        """The critic's terms; one pass over both halves."""
        both = self.critic(torch.cat([real, fake]), None if y is None else torch.cat([y, y]))
        on_real, on_fake = both.chunk(2)
        return {"critic": self.loss.real(on_real) + self.loss.fake(on_fake), "accuracy": (on_real > on_fake).float()}


class WassersteinGP(Adversarial):
    """D(G(z)) - D(x), at its best minus the Wasserstein distance, and `penalty` times the gradient penalty.

    Five updates of the critic for one of the generator (Gulrajani et al., 2017, algorithm 1).
    """

    turns = (*("critic",) * 5, "model")

    def __init__(self, critic: Critic, penalty: float = 10.0) -> None:
        if penalty < 0:
            raise ValueError(f"Expected penalty >= 0, got {penalty}.")
        self.terms = {**Adversarial.terms, "penalty": penalty}
        super().__init__(critic, "wasserstein_gp")

    def judge(self, real: Tensor, fake: Tensor, y: Tensor | None) -> Terms:
        return super().judge(real, fake, y) | {"penalty": gradient_penalty(self.critic, real, fake, y)}
