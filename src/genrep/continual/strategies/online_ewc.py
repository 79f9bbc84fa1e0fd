"""Online elastic weight consolidation."""

from __future__ import annotations

from genrep.continual.strategies.ewc import Consolidated
from genrep.continual.strategy import Setting, Strategy


def online_ewc(setting: Setting, *, weight: float | None = None, examples: int = 500, decay: float = 0.95) -> Strategy:
    """Online EWC (Schwarz et al., 2018): F <- decay F + F_task, one penalty around the latest weights.

    Args:
        weight: Of the penalty; None: 1e5 around a classifier, else 100.
        examples: Of a task on which the Fisher information is measured.
        decay: Of the importance of earlier tasks.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"Expected decay in [0, 1], got {decay}.")
    return Consolidated(setting, weight, examples, decay=decay, name="online_ewc")
