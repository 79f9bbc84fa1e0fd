"""Generative replay: the model as it was draws examples of earlier tasks."""

from __future__ import annotations

from genrep.continual.memory import Counts
from genrep.continual.replay import Memories, Mixed, check_labels, check_share, replay_share
from genrep.continual.strategy import Phase, Setting, Strategy, needs, stages
from genrep.contracts import Data
from genrep.data.batches import InMemory


class Replay(Strategy):
    """Batches of new data and draws of the frozen model, which is gone when the task ends."""

    kept = ("model", "counts")

    def __init__(self, setting: Setting, share: float, *, name: str = "replay", soft: bool = False) -> None:
        super().__init__()
        self.model, self.counts, self.share, self.soft = setting.make(), Counts(setting.spec), share, soft
        needs(self.model, "sample", name)
        if soft:
            needs(self.model, "decode", name)
        check_labels(self.model, name)
        check_share(share)

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)

        def mixed() -> Data:
            if not self.counts.total:
                return data
            memories, share = Memories(self.model, self.counts), replay_share(self.share, self.counts.total, len(data))
            if not self.soft:
                return Mixed(data, memories.examples, share)
            inward = None if data.spec.levels is None else self.model.domain.inward
            return Mixed(data, memories.means, share, inward)

        *first, last = stages(self.model, mixed)
        return [*first, last._replace(finish=lambda: self.counts.add(data))]


def replay(setting: Setting, *, share: float = 0.0) -> Strategy:
    """Generative replay (Shin et al., 2017): part of each batch is drawn from a frozen copy of the model.

    Args:
        share: Of each batch that is replayed; 0: that of earlier examples among all seen.
    """
    return Replay(setting, share)
