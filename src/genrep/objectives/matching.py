"""Latent regularisers that compare a batch of codes with a batch from the prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genrep.contracts import Model, Terms
from genrep.distributions.latent import draws
from genrep.nets.condition import encode_condition
from genrep.objectives.autoencoding import Coded, Penalty

Divergence = Callable[[Tensor, Tensor], Tensor]  # (N, D), (N, D) -> ()


class Matching(Penalty):
    """D(q(z), p(z)) between the codes of a batch and as many draws of the prior, () (Tolstikhin et al., 2018, eq. 4).

    With a `condition` of that width both sides carry scale * y as further coordinates, so that the joint laws of (z, y)
    match and z of one y is not traded for z of another: every y then finds its codes under the prior. Gradients reach
    the encoder, and a prior that learns.
    """

    def __init__(self, divergence: Divergence, weight: float = 1.0, condition: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected matching >= 0, got {weight}.")
        if condition and not scale > 0:
            raise ValueError(f"Expected condition_scale > 0, got {scale}.")
        self.terms = {"matching": weight}
        self.divergence, self.condition, self.scale = divergence, condition, scale

    def forward(self, model: Model, coded: Coded) -> Terms:
        z = coded.z.flatten(1)
        prior = draws(model.generative.get_submodule("prior")(y=coded.y), len(z)).flatten(1)
        if self.condition:
            c = self.scale * encode_condition(coded.y, self.condition, z)
            z, prior = torch.cat([z, c], 1), torch.cat([prior, c], 1)
        return {"matching": self.divergence(z, prior)}
