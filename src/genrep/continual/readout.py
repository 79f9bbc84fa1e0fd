"""An encoder into the space that tasks share, learnt after the fact from draws alone: no old data are needed for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from genrep.continual.bands import BLOCK, Draws
from genrep.continual.strategies.multiband import Multiband
from genrep.contracts import Batch, Conditional, Inference, Model, Objective, Terms, seeded
from genrep.distributions.heads import Likelihood, PointHead
from genrep.distributions.latent import Decoded
from genrep.nets.mlp import MLP
from genrep.nets.translator import Translated
from genrep.training.loop import fit
from genrep.training.settings import Settings


class Regression(Objective):
    """|e(x) - z|^2 / D of pairs (x inside the domain, z), (B,)."""

    terms = {"error": 1.0}

    def __init__(self) -> None:
        super().__init__(learns=("inference",))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        assert batch.y is not None
        return {"error": (model.inference.latent(batch.x).mean - batch.y).square().mean(1)}


def readout(
    strategy: Multiband, tasks: int, *, draws: int = 8192, steps: int = 500, width: int = 512, seed: int = 0
) -> Model:
    """A model that encodes x into z and decodes z, of all tasks learnt so far.

    min_e E |e(x) - z|^2 / D with z = t(lambda, code of i), x = mean of p(x | z), task i in proportion to its examples:
    e is the inverse of the decoder where bands draw. z is brought to mean 0 and one scale for training, and back.
    """
    bands, spec = strategy.bands, strategy.model.data
    translated = bands.generative.get_submodule("likelihood.net")
    likelihood = bands.generative.get_submodule("likelihood")
    assert isinstance(translated, Translated)
    assert isinstance(likelihood, Likelihood)
    with seeded(seed):
        drawn = Draws(bands.generative, strategy.drawing, tasks, draws, bands.data)
        with torch.no_grad():
            z = torch.cat([translated.translator(part) for part in drawn.latents.split(BLOCK)])
        encoder = MLP(spec.shape, [width, width // 2], (z.shape[1],))
    scale = z.std()
    model = Model(
        spec,
        Decoded(_Given(likelihood, translated)),
        Inference(latent=PointHead(encoder, onto=Scaled(z.mean(0), scale))),
        Regression(),
        domain=bands.domain,
    )
    told = spec._replace(classes=0, condition=z.shape[1], levels=None)
    how = Settings(steps=steps, seed=seed, lr=1e-3, schedule="cosine", precision="float32", device=str(z.device))
    fit(model, drawn.all().relabelled(z, told), how)
    return model


class Scaled:
    """mean + scale v."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.mean, self.scale = mean, scale

    def __call__(self, v: Tensor) -> Tensor:
        return self.mean + self.scale * v


class _Given(Conditional):
    """p(x | z) of the decoder alone, without the translator before it."""

    def __init__(self, likelihood: Likelihood, translated: Translated) -> None:
        super().__init__()
        self.decoder, self.of, self.measure = translated.decoder, likelihood.of, likelihood.measure

    def forward(self, z: Tensor, *, y: Tensor | None = None) -> Distribution:
        return self.of(self.decoder(z))
