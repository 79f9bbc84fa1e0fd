"""Lifelong generative modelling with a teacher and a student."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.continual.coders import Lesson, Taught, check_coder, only
from genrep.continual.memory import Counts
from genrep.continual.penalty import check_one_player
from genrep.continual.replay import Memories, check_labels, check_share, replay_share
from genrep.continual.strategy import Phase, Setting, Strategy, viewed
from genrep.contracts import Batch, Data, Model, Terms
from genrep.data.batches import InMemory
from genrep.distributions.latent import rate


class Consistency(Lesson):
    """KL(q(z | x) || q_T(z | x)), (k,) nats, from the student's posterior to the teacher's on what the teacher drew."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected weight >= 0, got {weight}.")
        self.terms = {"consistency": weight}

    def forward(self, model: Model, z: Tensor, old: Batch, teacher: Model) -> Terms:
        with torch.no_grad():
            wanted = teacher.inference.latent(old.x, y=old.y)
        return {"consistency": rate(model.inference.latent(old.x, y=old.y), wanted, z)}


class Studying(Strategy):
    """The model as it was when a task begins teaches what it becomes; the teacher is gone when the task ends."""

    kept = ("model", "counts")

    def __init__(self, setting: Setting, lesson: Lesson, share: float, *, name: str) -> None:
        super().__init__()
        self.model, self.counts, self.share, self.lesson = setting.make(), Counts(setting.spec), share, lesson
        check_coder(self.model, name)
        check_labels(self.model, name)
        check_share(share)

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)
        taught = Taught(only(self.model), self.lesson)

        def start() -> None:
            if seen := self.counts.total:
                taught.taught_by(Memories(self.model, self.counts), replay_share(self.share, seen, len(data)))

        def finish() -> None:
            self.counts.add(data)

        return [Phase(viewed(self.model, taught), lambda: data, start=start, finish=finish)]


class LifelongVAE(Studying):
    """For models of one player."""

    def __init__(self, setting: Setting, weight: float, share: float) -> None:
        super().__init__(setting, Consistency(weight), share, name="lifelong_vae")
        check_one_player(self.model, "lifelong_vae")


def lifelong_vae(setting: Setting, *, weight: float = 0.01, share: float = 0.0) -> Strategy:
    """Lifelong VAE (Ramapuram et al., 2020): replay by a teacher whose posterior the student keeps.

    L(x) on new data and draws of the teacher, + weight KL(q(z | x) || q_T(z | x)) on those draws. What the model is
    told takes the place of their discrete latent; their term of mutual information with it is left out.

    Args:
        weight: Of the consistency with the teacher's posterior.
        share: Of each batch that the teacher draws; 0: that of earlier examples among all seen.
    """
    return LifelongVAE(setting, weight, share)
