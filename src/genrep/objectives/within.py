"""Models inside models: the prior over the codes of an autoencoder, latent diffusion, the generator of noisy images.

The outer model reads its data into those of the inner one; the inner model is trained by an objective of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genrep.contracts import Batch, Model, Objective, Terms

Read = Callable[[Model, Batch], Batch]


class Within(Objective):
    """The terms of an objective of `inner` on read(outer model, batch), which is a batch as the inner data hold it.

    Players, terms and weights are those of that objective. Only the inner model is in train mode, so what reads keeps
    its statistics; and no gradient reaches it, unless `learns` names parts of the outer model that shall learn, too.

    Args:
        inner: Its generative part is usually a part of the outer model, too; parameters count once.
        read: (model, batch) -> the inner batch. It passes `batch.y` on where the inner model is conditional.
        stage: Which of the inner model's objectives.
        learns: Module paths of the outer model that player `model` trains through `read`.
    """

    def __init__(self, inner: Model, read: Read, *, stage: int = 0, learns: Sequence[str] = ()) -> None:
        if not 0 <= stage < len(inner.objectives):
            raise ValueError(f"Expected a stage below {len(inner.objectives)}, those of the inner model, got {stage}.")
        objective = cast(Objective, inner.objectives[stage])
        self.terms, self.turns, self.probation = objective.terms, objective.turns, objective.probation  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(objective.weights)
        self.inner, self.stage, self.through = inner, stage, bool(learns)
        self.read: Read = read
        inside = {p: tuple(f"objective.inner.{path}" for path in inner.paths(stage, p)) for p in set(self.turns)}
        self.learns = inside | {"model": (*inside.get("model", ()), *learns)}

    @property
    def objective(self) -> Objective:
        return cast(Objective, self.inner.objectives[self.stage])

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        with torch.set_grad_enabled(self.through and torch.is_grad_enabled()):
            read = self.read(model, batch)
        self.objective.training = self.training  # as the trainer does for an objective of its own
        return self.inner(read, self.stage, player)

    def total(self, terms: Terms) -> Tensor:
        return self.objective.total(terms)


class Jointly(Objective):
    """The sum of several objectives of player `model` on the same batch, each with its own draws.

    Terms keep their names; a ValueError where two objectives share one, or where there are other players.
    """

    def __init__(self, *objectives: Objective) -> None:
        weights: dict[str, float] = {}
        for objective in objectives:
            if objective.turns != ("model",):
                raise ValueError(f"Expected objectives of player model alone, got the players {objective.turns}.")
            if shared := weights.keys() & objective.weights.keys():
                raise ValueError(
                    f"Expected objectives whose terms have names of their own, got {sorted(shared)} twice."
                )
            weights |= objective.weights
        self.terms, self.probation = weights, max(o.probation for o in objectives)  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__()
        self.objectives = nn.ModuleList(objectives)
        self.learns = {"model": tuple(dict.fromkeys(p for i in range(len(objectives)) for p in self._paths(i)))}

    def _paths(self, i: int) -> list[str]:
        """What objective i learns, with what it holds itself named from here."""
        learns = cast(Objective, self.objectives[i]).learns["model"]
        return [renamed(p, f"objectives.{i}") for p in learns]

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        terms: Terms = {}
        for objective in self.objectives:
            objective.training = self.training
            terms |= objective(model, batch, player)
        return terms


def renamed(path: str, place: str) -> str:
    """What an objective learns, as one that holds it at `place` says it; paths in other parts stay.

    >>> renamed("objective.critic", "inner"), renamed("inference", "inner")
    ('objective.inner.critic', 'inference')
    """
    return f"objective.{place}{path.removeprefix('objective')}" if path.split(".")[0] == "objective" else path
