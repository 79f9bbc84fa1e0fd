"""What a model over the latents of an autoencoder reads."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.distributions import Distribution

from genrep.contracts import Batch, Model, Terms
from genrep.distributions.codes import Quantised
from genrep.distributions.standardise import StandardUnits
from genrep.objectives.autoencoding import Coded, Penalty, inside


class Measured(Penalty):
    """No term: in train mode the prior's units follow the mean and standard deviation of the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = {}

    def forward(self, model: Model, coded: Coded) -> Terms:
        _units(model).observe(_before_quantising(coded.q, coded.z))
        return {}


def _units(model: Model) -> StandardUnits:
    return cast(StandardUnits, model.generative.get_submodule("prior.codes"))


def _before_quantising(q: Distribution, z: Tensor) -> Tensor:
    return q.before if isinstance(q, Quantised) else z


def read_latents(model: Model, batch: Batch) -> Batch:
    """A draw of q(z | x), as the model inside takes its data, with the labels or conditions."""
    q = model.inference.latent(inside(model, batch), y=batch.y)
    domain = model.generative.get_submodule("prior.codes")
    return Batch(cast(StandardUnits, domain).inward(_before_quantising(q, q.sample())), batch.y)
