"""The small network that turns features into logits."""

from __future__ import annotations

from torch import nn


def classifier_head(
    features: int, classes: int, *, width: int = 0, dropout: float = 0.0, normalise: bool = False
) -> nn.Sequential:
    """(B, features) -> logits (B, classes): linear, batch normalisation where wanted, LeakyReLU, dropout, linear.

    `width`: hidden units, 0: as many as features, at most 512.
    """
    if width < 0 or not 0 <= dropout < 1:
        raise ValueError(f"Expected head_width >= 0 and 0 <= head_dropout < 1, got {width} and {dropout}.")
    hidden = width or min(features, 512)
    norm = nn.BatchNorm1d(hidden) if normalise else nn.Identity()
    return nn.Sequential(
        nn.Linear(features, hidden), norm, nn.LeakyReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    )
