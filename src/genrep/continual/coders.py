"""What strategies for variational autoencoders share: what they ask of a model, and a teacher that draws for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from genrep.continual.replay import Memories, replayed
from genrep.continual.strategy import needs
from genrep.contracts import Batch, Model, Objective, Terms, Unsupported
from genrep.distributions.heads import GaussianHead
from genrep.objectives.within import renamed


def check_coder(model: Model, strategy: str) -> None:
    """Unsupported unless the model samples, encodes to a Gaussian and decodes, and has one stage of training."""
    for capability in ("sample", "reconstruct"):
        needs(model, capability, strategy)
    if not isinstance(model.inference.latent, GaussianHead):
        raise Unsupported(
            f"Strategy {strategy} needs a model with a Gaussian posterior, this one has "
            f"{type(model.inference.latent).__name__}: vae, gmm_vae, vamp_vae and vae_gan have one."
        )
    if (count := len(model.objectives)) != 1:
        raise Unsupported(f"Strategy {strategy} needs a model of one stage of training, this one has {count}: try vae.")


class Lesson(nn.Module, ABC):
    """Terms of what a teacher drew, beside those of the model's own objective on the whole batch."""

    terms: Mapping[str, float]

    @abstractmethod
    def forward(self, model: Model, z: Tensor, old: Batch, teacher: Model) -> Terms:
        """z and old.x (B, *x) inside the domain are a pair that the teacher drew."""


class Taught(Objective):
    """The objective of a model on batches in which a share is what its teacher draws, and a lesson on those draws.

    Players and terms are those of the objective; the lesson is for player `model`. Without a teacher it is that
    objective alone.
    """

    def __init__(self, inner: Objective, lesson: Lesson) -> None:
        self.terms = {**inner.weights, **lesson.terms}
        self.turns, self.probation = inner.turns, inner.probation  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__()
        self.inner, self.lesson = inner, lesson
        self.learns = {player: tuple(renamed(p, "inner") for p in paths) for player, paths in inner.learns.items()}
        self.teacher: tuple[Memories, float] | tuple[()] = ()  # in a tuple: no part of the phase's model

    def taught_by(self, memories: Memories, share: float) -> None:
        self.teacher = (memories, share)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        self.inner.training = self.training
        k = replayed(self.teacher[1], len(batch.x)) if self.teacher else 0
        if not (self.teacher and k):
            return self.inner(model, batch, player)
        memories = self.teacher[0]
        z, old = memories.coded(k)
        terms = self.inner(model, _beside(batch, old), player)
        if player == "model":
            inside = Batch(model.domain.inward(old.x), old.y)
            terms |= self.lesson(model, z, inside, memories.model)
        return terms


def _beside(batch: Batch, old: Batch) -> Batch:
    """A batch whose first examples make room for old ones."""
    x = torch.cat([batch.x[len(old.x) :], old.x.to(batch.x.dtype)])
    if batch.y is None:
        return Batch(x)
    y = batch.y[len(old.x) :]
    known = torch.full((len(old.x),), -1, device=x.device) if old.y is None else old.y
    return Batch(x, torch.cat([y, known.to(y.dtype)]))


def only(model: Model) -> Objective:
    """The objective of a model of one stage."""
    return cast(Objective, model.objectives[0])
