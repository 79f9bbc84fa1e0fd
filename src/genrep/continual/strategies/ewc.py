"""Elastic weight consolidation."""

from __future__ import annotations

from genrep.continual.penalty import Quadratic, check_one_player, fisher, weight_for
from genrep.continual.strategy import Phase, Setting, Strategy, extended
from genrep.contracts import Data


class Consolidated(Strategy):
    """A quadratic penalty, weighed by Fisher information that is measured when a task ends."""

    kept = ("model", "penalty")

    def __init__(
        self, setting: Setting, weight: float | None, examples: int, *, decay: float | None, name: str
    ) -> None:
        super().__init__()
        self.model = setting.make()
        check_one_player(self.model, name)
        if examples < 1:
            raise ValueError(f"Expected at least one example to measure importance on, got {examples}.")
        weight = weight_for(self.model, weight, classifier=1e5, other=100.0)
        self.penalty, self.examples, self.decay = Quadratic(self.model, weight), examples, decay

    def learn(self, task: int, data: Data) -> list[Phase]:
        def finish() -> None:
            found = fisher(self.model, data, self.examples)
            if self.decay is None:
                self.penalty.add(self.model, found)
            else:
                self.penalty.decay_and_move(self.model, found, self.decay)

        count = len(self.model.objectives)
        phases = [Phase(extended(self.model, stage, self.penalty), lambda: data) for stage in range(count)]
        return [*phases[:-1], phases[-1]._replace(finish=finish)]


def ewc(setting: Setting, *, weight: float | None = None, examples: int = 500) -> Strategy:
    """EWC (Kirkpatrick et al., 2017, eq. 3): a penalty for every task, weight / 2 sum F_i (theta_i - theta*_i)^2.

    Their sum is kept exactly as one penalty with added importances and averaged anchors, whatever the number of tasks.

    Args:
        weight: Of the penalty; None: 1e5 around a classifier, else 100.
        examples: Of a task on which the Fisher information is measured.
    """
    return Consolidated(setting, weight, examples, decay=None, name="ewc")
