"""Learning labels."""

from __future__ import annotations

import torch.nn.functional as F

from genrep.contracts import Batch, Model, Objective, Terms


class CrossEntropy(Objective):
    """-log p(y | x) of `inference.label`, over the examples whose label is known (y >= 0)."""

    terms = {"cross_entropy": 1.0, "error_rate": 0.0}

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if batch.y is None:
            raise ValueError("A classifier needs labels, and this data set has none.")
        known = batch.y >= 0
        logits = model.inference.label(model.domain.inward(batch.x)).logits[known]
        y = batch.y[known]
        return {
            "cross_entropy": F.cross_entropy(logits, y, reduction="none"),
            "error_rate": (logits.argmax(1) != y).float(),
        }
