"""The rates of latents that are normals and bits, and the reconstruction from latents that are given."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.bands import Band, bernoulli_kl
from genrep.distributions.basic import Bernoulli, kl
from genrep.objectives.autoencoding import Coded, Penalty


class BandRate(Penalty):
    """KL of the normals, weighted by beta; of the bits, weighted by `binary_beta`; and what the prior of bits learns.

    prior: KL(q(bits | x) || p(bits | band)) with q held still, least where p has the mean probabilities of q; nats.
    """

    def __init__(self, binary: int, beta: float = 1.0, binary_beta: float = 0.0) -> None:
        super().__init__()
        if beta < 0 or binary_beta < 0:
            raise ValueError(f"Expected beta and binary_beta >= 0, got {beta} and {binary_beta}.")
        self.binary = binary
        self.terms = {"rate": beta} | ({"binary_rate": binary_beta, "prior": 1.0} if binary else {})

    def forward(self, model: Model, coded: Coded) -> Terms:
        q, p = cast(Band, coded.q), cast(Band, model.generative.get_submodule("prior")(y=coded.y))
        rate = kl(q.normal, p.normal)
        assert rate is not None
        if not self.binary:
            return {"rate": rate}
        held = Bernoulli(q.bits.logits.detach()), Bernoulli(p.bits.logits.detach())
        return {
            "rate": rate,
            "binary_rate": bernoulli_kl(q.bits, held[1]),
            "prior": bernoulli_kl(held[0], p.bits),
        }


class Consolidation(Objective):
    """-log p(x | lambda, code) of pairs: a batch's y is (lambda, code), its x is inside the domain, (B,) nats.

    Reference: Deja et al. (2022), "Multiband VAE", eqs. 2 and 3, there with the squared error.
    """

    def __init__(self, *learns: str) -> None:
        self.terms = {"distortion": 1.0}
        super().__init__(learns=learns)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        assert batch.y is not None
        return {"distortion": -model.generative.get_submodule("likelihood")(batch.y).log_prob(batch.x)}


@torch.no_grad()
def band_of(model: Model, x: Tensor, y: Tensor, batch: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters of q(lambda | x) of examples inside the domain: means and deviations (N, C), logits (N, D)."""
    found = [model.inference.latent(a, y=b) for a, b in zip(x.split(batch), y.split(batch), strict=True)]
    return (
        torch.cat([q.normal.mean for q in found]),
        torch.cat([q.normal.stddev for q in found]),
        torch.cat([q.bits.logits for q in found]),
    )
