"""Walk-back training of denoising autoencoders."""

from __future__ import annotations

from typing import cast

import torch

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.walkback import DenoisingChain


class WalkBack(Objective):
    """-log P(x | x~_k) per value, over the noisy examples of a walk away from x (Bengio et al., 2013, algorithm 1).

    x~_1 ~ C(x~ | x), x~_(k+1) ~ C(x~ | x^), x^ ~ P(x | x~_k): the reconstruction learns to come back from where the
    chain itself goes astray. `steps` = 1 is the denoising autoencoder. No gradient passes through draws.
    """

    terms = {"distortion": 1.0}

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"Expected walk_back >= 1 step, got {steps}.")
        super().__init__(learns=("generative.reconstruction",))
        self.steps = steps

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        chain, x, terms = cast(DenoisingChain, model.generative), model.domain.inward(batch.x), []
        noisy = chain.corruption(x, y=batch.y).sample()
        for k in range(self.steps):
            p = chain.reconstruction(noisy, y=batch.y)
            terms.append(-p.log_prob(x) / x[0].numel())
            if k < self.steps - 1:
                noisy = chain.corruption(p.sample(), y=batch.y).sample()
        return {"distortion": torch.stack(terms).mean(0)}
