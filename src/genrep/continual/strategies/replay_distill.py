"""Generative replay with soft targets."""

from __future__ import annotations

from genrep.continual.strategies.replay import Replay
from genrep.continual.strategy import Setting, Strategy


def replay_distill(setting: Setting, *, share: float = 0.0) -> Strategy:
    """Generative replay whose examples are means of the frozen decoder, not draws rounded to levels.

    Args:
        share: Of each batch that is replayed; 0: that of earlier examples among all seen.
    """
    return Replay(setting, share, name="replay_distill", soft=True)
