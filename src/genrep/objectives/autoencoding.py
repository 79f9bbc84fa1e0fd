"""Autoencoding: one draw of z, its reconstruction, and penalties that share both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.basic import Gaussian
from genrep.distributions.latent import rate


class Coded(NamedTuple):
    """One pass through encoder and decoder; encoding twice would cost a tenth to a third of the speed."""

    x: Tensor  # inside the domain
    y: Tensor | None
    q: Distribution  # q(z | x)
    z: Tensor  # a draw of it
    p: Distribution  # p(x | z)


def inside(model: Model, batch: Batch) -> Tensor:
    """x as the likelihood reads it: a density a point of the level's cell, anything else the level."""
    if model.generative.measure == "density":
        return model.domain.continuous(batch.x)[0]
    return model.domain.inward(batch.x)


def code(model: Model, batch: Batch) -> Coded:
    """Encode, draw, decode."""
    x = inside(model, batch)
    q = model.inference.latent(x, y=batch.y)
    z = q.rsample()
    return Coded(x, batch.y, q, z, model.generative.get_submodule("likelihood")(z, y=batch.y))


class Penalty(nn.Module, ABC):
    """Terms of a pass through encoder and decoder."""

    terms: Mapping[str, float]

    @abstractmethod
    def forward(self, model: Model, coded: Coded) -> Terms: ...


class Rate(Penalty):
    """KL(q(z | x) || p(z)), weighted by beta (Higgins et al., 2017, eq. 4); beta = 1 is the evidence lower bound."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"Expected beta >= 0, got {beta}.")
        self.terms = {"rate": beta}

    def forward(self, model: Model, coded: Coded) -> Terms:
        prior = model.generative.get_submodule("prior")
        return {"rate": rate(coded.q, prior(y=coded.y), coded.z)}


class StandardRate(Rate):
    """KL(q(z | x) || N(0, I)), weighted by beta, whatever prior takes over later."""

    def forward(self, model: Model, coded: Coded) -> Terms:
        zero = torch.zeros_like(coded.z)
        return {"rate": rate(coded.q, Gaussian(zero, zero), coded.z)}


class Autoencoding(Objective):
    """-log p(x | z) with z ~ q(z | x), plus the terms of the penalties (Kingma & Welling, 2014, eq. 7)."""

    def __init__(self, *penalties: Penalty, learns: Sequence[str] = ("generative", "inference")) -> None:
        self.terms = {"distortion": 1.0}
        for penalty in penalties:
            self.terms |= penalty.terms
        super().__init__(learns=learns)
        self.penalties = nn.ModuleList(penalties)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        coded = code(model, batch)
        terms = {"distortion": -coded.p.log_prob(coded.x)}
        for penalty in self.penalties:
            terms |= penalty(model, coded)
        return terms
