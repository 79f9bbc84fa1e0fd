"""Autoencoding: one draw of z, its reconstruction, and penalties on the posterior that share the draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.latent import rate


class Penalty(nn.Module, ABC):
    """Terms of a posterior q(z | x) and a draw z of it; encoding twice would cost a tenth to a third of the speed."""

    terms: Mapping[str, float]

    @abstractmethod
    def forward(self, model: Model, q: Distribution, z: Tensor, y: Tensor | None) -> Terms: ...


class Rate(Penalty):
    """KL(q(z | x) || p(z)), weighted by beta (Higgins et al., 2017, eq. 4); beta = 1 is the evidence lower bound."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"Expected beta >= 0, got {beta}.")
        self.terms = {"rate": beta}

    def forward(self, model: Model, q: Distribution, z: Tensor, y: Tensor | None) -> Terms:
        prior = model.generative.get_submodule("prior")
        return {"rate": rate(q, prior(y=y), z)}


class Autoencoding(Objective):
    """-log p(x | z) with z ~ q(z | x), plus the terms of the penalties (Kingma & Welling, 2014, eq. 7)."""

    def __init__(self, *penalties: Penalty) -> None:
        self.terms = {"distortion": 1.0}
        for penalty in penalties:
            self.terms |= penalty.terms
        super().__init__()
        self.penalties = nn.ModuleList(penalties)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        x = (
            model.domain.continuous(batch.x)[0]
            if model.generative.measure == "density"
            else model.domain.inward(batch.x)
        )
        q = model.inference.latent(x, y=batch.y)
        z = q.rsample()
        likelihood = model.generative.get_submodule("likelihood")
        terms = {"distortion": -likelihood(z, y=batch.y).log_prob(x)}
        for penalty in self.penalties:
            terms |= penalty(model, q, z, batch.y)
        return terms
