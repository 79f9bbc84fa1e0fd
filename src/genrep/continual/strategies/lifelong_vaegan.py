"""Lifelong VAEGAN."""

from __future__ import annotations

from torch import Tensor

from genrep.continual.coders import Lesson, only
from genrep.continual.strategies.lifelong_vae import Studying
from genrep.continual.strategy import Setting, Strategy
from genrep.contracts import Batch, Model, Terms, Unsupported


class Dreaming(Lesson):
    """-log q(z | x), (k,) nats, on pairs that the teacher drew: the encoder learns the codes of what it dreams."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"Expected weight >= 0, got {weight}.")
        self.terms = {"dream": weight}

    def forward(self, model: Model, z: Tensor, old: Batch, teacher: Model) -> Terms:
        return {"dream": -model.inference.latent(old.x, y=old.y).log_prob(z)}


class LifelongVAEGAN(Studying):
    """For models with a critic of images; the critic survives with the model."""

    def __init__(self, setting: Setting, weight: float, share: float) -> None:
        super().__init__(setting, Dreaming(weight), share, name="lifelong_vaegan")
        if "critic" not in only(self.model).turns:
            raise Unsupported(
                "Strategy lifelong_vaegan needs a model with a critic of images, this one has none: set model=vae_gan."
            )


def lifelong_vaegan(setting: Setting, *, weight: float = 0.1, share: float = 0.0) -> Strategy:
    """Lifelong VAEGAN (Ye & Bors, 2020): a generator trained against a critic teaches the next one and its encoder.

    Critic and model see new data and draws of the teacher; the encoder also minimises -weight log q(z | x) on pairs
    (z, x) that the teacher drew.

    Args:
        weight: Of the dreaming.
        share: Of each batch that the teacher draws; 0: that of earlier examples among all seen.
    """
    return LifelongVAEGAN(setting, weight, share)
