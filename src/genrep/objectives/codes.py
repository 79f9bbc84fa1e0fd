"""Penalties on discrete codes, and how many of them are in use."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Terms
from genrep.distributions.codes import Chosen, Entries, Quantised
from genrep.nets.codebook import CodebookName
from genrep.objectives.autoencoding import Coded, Penalty, inside


def use_of(codes: Tensor, size: int) -> Terms:
    """`usage`: the share of the entries that a batch of codes uses; `perplexity`: exp of the entropy of that use."""
    share = torch.bincount(codes.flatten(), minlength=size).float() / codes.numel()
    return {"usage": (share > 0).float().mean(), "perplexity": torch.special.entr(share).sum().exp()}


class Commitment(Penalty):
    """commitment |z_e - sg(e)|^2, (B,), keeps what the encoder gives, z_e, near its entries e.

    Where the codebook learns by gradient, |sg(z_e) - e|^2 moves the entries (van den Oord et al., 2017, eq. 3).
    """

    def __init__(self, weight: float, kind: CodebookName) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected commitment >= 0, got {weight}.")
        self.terms = {"commitment": weight} | ({"codebook": 1.0} if kind == "gradient" else {})
        self.terms |= {"usage": 0.0, "perplexity": 0.0}

    def forward(self, model: Model, coded: Coded) -> Terms:
        q = cast(Quantised, coded.q)
        terms = {"commitment": (q.before - q.entries.detach()).square().flatten(1).sum(1)}
        if "codebook" in self.terms:
            terms["codebook"] = (q.before.detach() - q.entries).square().flatten(1).sum(1)
        return terms | use_of(q.codes, model.inference.latent.codebook.size)


class UniformRate(Penalty):
    """KL(q(z | x) || uniform over the entries), (B,) nats, in closed form, weighted by beta."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"Expected beta >= 0, got {beta}.")
        self.terms = {"rate": beta, "usage": 0.0, "perplexity": 0.0, "temperature": 0.0}

    def forward(self, model: Model, coded: Coded) -> Terms:
        q = cast(Chosen, coded.q)
        terms = {"rate": q.rate_to_uniform()} | use_of(q.codes, q.codebook.size)
        return terms if q.temperature is None else terms | {"temperature": q.temperature}


def read_codes(model: Model, batch: Batch) -> Batch:
    """The integer codes of a batch, drawn from q(z | x), with its labels or conditions."""
    z = model.inference.latent(inside(model, batch), y=batch.y).sample()
    entries = cast(Entries, model.generative.get_submodule("prior.codes"))
    return Batch(entries.inward(z), batch.y)
