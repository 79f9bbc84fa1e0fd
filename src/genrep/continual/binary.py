"""Objectives of BinPlay: an encoder that finds its codes, a decoder of codes, a classifier that learns what it said."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.continual.assignment import Matching, match_free
from genrep.contracts import Batch, Model, Objective, Terms
from genrep.objectives.autoencoding import Autoencoding, code

LossName = Literal["cross_entropy", "squared_error"]


class Assigning(Autoencoding):
    """|x - d(z)|^2 + w |z - c|^2 with z = e(x) and c the code that the matching of the mini-batch gives to x.

    Codes are those of the task that no example of this epoch has taken; when all are taken, an epoch has ended. So a
    batch over the border of two epochs is matched in two parts.

    Reference: thesis, algorithm 2.
    """

    taken: Tensor

    def __init__(self, weight: float, how: Matching, room: int) -> None:
        if not weight > 0:
            raise ValueError(f"Expected weight > 0, got {weight}.")
        super().__init__()
        self.terms = {**self.terms, "assignment": weight}
        self.weights = dict(self.terms)
        self.how: Matching = how
        self.codes: tuple[Tensor] | tuple[()] = ()  # those of the task (N, n), in a tuple: not saved, but computed
        self.register_buffer("taken", torch.zeros(room, dtype=torch.bool))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        coded = code(model, batch)
        assert self.codes
        codes = self.codes[0]
        with torch.no_grad():
            chosen = self.choose(coded.z.detach().float(), codes)
        return {
            "distortion": -coded.p.log_prob(coded.x),
            "assignment": (coded.z - codes[chosen]).square().sum(1),
        }

    def choose(self, z: Tensor, codes: Tensor) -> Tensor:
        """The place of the code of each z, (B,)."""
        taken = self.taken[: len(codes)] if self.training else torch.zeros_like(self.taken[: len(codes)])
        left = len(codes) - int(taken.sum())
        chosen: list[Tensor] = []
        for part in z.split([left, len(z) - left]) if left < len(z) else (z,):
            if bool(taken.all()):
                taken.zero_()
            chosen.append(match_free(part, codes, taken, self.how))
        return torch.cat(chosen)


class Recalling(Objective):
    """|x - d(c)|^2 of an example x, as the data hold it, and its code c, which stands where labels do."""

    terms = {"distortion": 1.0}

    def __init__(self) -> None:
        super().__init__(learns=("generative",))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        assert batch.y is not None
        p = model.generative.get_submodule("likelihood")(batch.y.float())
        return {"distortion": -p.log_prob(model.domain.inward(batch.x))}


class SoftTargets(Objective):
    """How far p(y | x) is from the probabilities (B, C) that stand where labels do; a row of zeros teaches nothing.

    cross_entropy: -sum_c t_c log p_c. squared_error: sum_c (t_c - p_c)^2, as in the released code.
    """

    def __init__(self, loss: LossName, weight: float = 1.0, *, learns: tuple[str, ...] = ("inference.label",)) -> None:
        if not weight > 0:
            raise ValueError(f"Expected weight > 0, got {weight}.")
        self.terms = {loss: weight, "error_rate": 0.0}
        super().__init__(learns=learns)
        self.loss: LossName = loss

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        assert batch.y is not None
        logits, known = model.inference.label(model.domain.inward(batch.x)).logits, batch.y.sum(1) > 0
        if self.loss == "cross_entropy":
            value = -(batch.y * F.log_softmax(logits, 1)).sum(1)
        else:
            value = (batch.y - logits.softmax(1)).square().sum(1) * known
        return {self.loss: value, "error_rate": ((logits.argmax(1) != batch.y.argmax(1)) & known).float()}
