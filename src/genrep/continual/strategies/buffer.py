"""Experience replay from a reservoir."""

from __future__ import annotations

from genrep.continual.memory import Examples
from genrep.continual.replay import Mixed
from genrep.continual.strategy import Phase, Setting, Strategy, stages
from genrep.contracts import Data


class Buffer(Strategy):
    """Some old examples are kept, and part of each batch comes from them."""

    kept = ("model", "memory")

    def __init__(self, setting: Setting, size: int, share: float) -> None:
        super().__init__()
        self.model, self.memory, self.share = setting.make(), Examples(setting.spec, size), share
        if not 0 < share < 1:
            raise ValueError(f"Expected share in (0, 1), got {share}.")

    def learn(self, task: int, data: Data) -> list[Phase]:
        def mixed() -> Data:
            return Mixed(data, self.memory.draw, self.share) if len(self.memory) else data

        *first, last = stages(self.model, mixed)
        return [*first, last._replace(finish=lambda: self.memory.reservoir(data))]


def buffer(setting: Setting, *, size: int = 500, share: float = 0.5) -> Strategy:
    """Experience replay with a reservoir (Chaudhry et al., 2019, "On tiny episodic memories").

    Args:
        size: Examples that are kept.
        share: Of each batch that comes from them.
    """
    return Buffer(setting, size, share)
