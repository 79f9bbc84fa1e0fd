"""Synaptic intelligence."""

from __future__ import annotations

from genrep.continual.penalty import PathIntegral, Quadratic, check_one_player, weight_for
from genrep.continual.strategy import Phase, Setting, Strategy, extended
from genrep.contracts import Data


class Intelligent(Strategy):
    """Importance is what a weight did for the loss on its way through a task."""

    kept = ("model", "penalty")

    def __init__(self, setting: Setting, weight: float | None, damping: float) -> None:
        super().__init__()
        self.model = setting.make()
        check_one_player(self.model, "si")
        if not damping > 0:
            raise ValueError(f"Expected damping > 0, got {damping}.")
        weight = weight_for(self.model, weight, classifier=1e4, other=1.0)
        self.penalty, self.damping = Quadratic(self.model, weight), damping
        self.path = PathIntegral(self.model, self.penalty)  # not kept: it belongs to a task

    def learn(self, task: int, data: Data) -> list[Phase]:
        def finish() -> None:
            self.penalty.decay_and_move(self.model, self.path.importance(self.damping))

        # the path is that of the live weights, so they are what is kept: no average
        fit = {"ema": 0.0, "before_update": self.path.before_update, "after_update": self.path.after_update}
        count = len(self.model.objectives)
        views = [extended(self.model, stage, self.penalty, self.path) for stage in range(count)]
        phases = [Phase(view, lambda: data, fit=fit) for view in views]
        phases[0] = phases[0]._replace(start=self.path.begin)
        phases[-1] = phases[-1]._replace(finish=finish)
        return [phase._replace(stage=0) for phase in phases]


def si(setting: Setting, *, weight: float | None = None, damping: float = 0.1) -> Strategy:
    """Synaptic intelligence (Zenke, Poole & Ganguli, 2017): a penalty weighed by path integrals of the gradient.

    Args:
        weight: Of the penalty, half of it is their c; None: 1e4 around a classifier, else 1.
        damping: Their xi, which bounds the importance of weights that hardly moved.
    """
    return Intelligent(setting, weight, damping)
