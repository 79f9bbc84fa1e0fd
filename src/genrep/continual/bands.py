"""The pairs that Multiband VAE learns from: latents with targets, of new data and of draws; controlled forgetting."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.continual.computed import BLOCK, Computed
from genrep.contracts import Batch, Conditional, Data, DataSpec, Model, evaluating
from genrep.distributions.bands import Band, BandMixtures, BandPrior
from genrep.distributions.basic import Bernoulli, Gaussian
from genrep.nets.translator import Translator
from genrep.objectives.bands import band_of


def nearest_above(old: Tensor, directions: Tensor, threshold: float) -> Tensor:
    """For each row of `old` (M, D) the row of `directions` (N, D) of the largest cosine, -1 where it is below.

    sim(z_j) = max_q cos(z_j, z_q) >= threshold; `directions` are of length 1. Shape (M,) int64.
    Reference: Deja et al. (2022), "Multiband VAE", controlled forgetting; there > on 1,000 random rows in the code.
    """
    found = []
    for block in F.normalize(old, dim=1).split(BLOCK):
        similarity, index = (block @ directions.T).max(1)
        found.append(torch.where(similarity >= threshold, index, -1))
    return torch.cat(found)


class Encodings:
    """q(lambda | x) of all examples of a task by the local encoder, so that no update has to encode.

    x: the targets of examples inside the domain, (n indices,) -> (n, *shape).
    """

    def __init__(self, local: Model, x: Tensor, band: int, inside: Callable[[Tensor], Tensor]) -> None:
        self.x, self.inside = x, inside
        with evaluating(local):
            blocks = [band_of(local, inside(part), torch.full((len(part),), band)) for part in x.split(BLOCK)]
        self.mean, self.std, self.logits = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        self.code = local.inference.latent.codes[band]

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, index: Tensor) -> Tensor:
        """(lambda, code) with lambda drawn from q(lambda | x), (n, C + D + K)."""
        index = index.to(self.mean.device)
        q = Band(
            Gaussian(self.mean[index], self.std[index].log()),
            Bernoulli(self.logits[index]),
            self.code.expand(len(index), -1),
        )
        return q.sample()

    def likeliest(self) -> Tensor:
        """(lambda, code) at the means of the normals and the likelier bits, of all examples."""
        bits = (self.logits > 0).to(self.mean)
        return torch.cat([self.mean, bits, self.code.expand(len(self.mean), -1)], 1)

    def targets(self, index: Tensor) -> Tensor:
        return self.inside(self.x[index.to(self.x.device)])


class Draws(Computed):
    """n pairs that earlier bands draw: means of the decoder as it was, and (lambda, code).

    `generative` is frozen. `prior` draws the latents, BandMixtures or the BandPrior of the generative part.
    """

    def __init__(
        self, generative: Conditional, prior: BandPrior | BandMixtures, bands: int, n: int, spec: DataSpec
    ) -> None:
        super().__init__(n, self._pairs, spec)
        self.likelihood, device = generative.get_submodule("likelihood"), prior.counts.device
        band = torch.multinomial(prior.counts[:bands].float(), n, replacement=True).to(device)
        self.replaced: Callable[[Tensor, Tensor], None] = lambda index, x: None
        with torch.no_grad():
            self.latents = prior(y=band).sample()

    def _pairs(self, index: Tensor) -> Batch:
        index = index.to(self.latents.device)
        latents = self.latents[index]
        x = self.likelihood(latents).mean
        self.replaced(index, x)
        return Batch(x, latents)

    @torch.no_grad()
    def forget(self, encodings: Encodings, translator: Translator, threshold: float) -> None:
        """Targets whose z is near that of a new example become that example; z as the translator says now."""
        old, new = (
            torch.cat([translator(part) for part in latents.split(BLOCK)])
            for latents in (self.latents, encodings.likeliest())
        )
        directions = F.normalize(new, dim=1)

        def replaced(index: Tensor, x: Tensor) -> None:
            nearest = nearest_above(old[index], directions, threshold)
            which = (nearest >= 0).nonzero()[:, 0]
            x[which] = encodings.targets(nearest[which])

        self.replaced = replaced


class Pairs:
    """Batches of (x, (lambda, code)): those of the new examples asked for, and `ratio` times as many draws.

    Beside n examples come floor(ratio n + u) draws, u uniform in [0, 1), so that they are ratio n on average. Noise is
    that of the update, from the global generator, so that a run that resumes sees the same batches.
    """

    def __init__(self, data: Data, encodings: Encodings, draws: Draws, ratio: float) -> None:
        self.spec, self.encodings, self.draws, self.ratio = data.spec, encodings, draws, ratio

    def __len__(self) -> int:
        return len(self.encodings)

    def expect(self, count: int) -> None:
        """Told how many new examples will be asked for."""
        self.draws.expect(round(self.ratio * count))

    def __getitem__(self, index: Tensor) -> Batch:
        k = int(self.ratio * len(index) + float(torch.rand(())))
        drawn = self.draws[torch.randint(len(self.draws), (k,))]
        x, latents = self.encodings.targets(index), self.encodings.draw(index)
        assert drawn.y is not None
        return Batch(torch.cat([x, drawn.x]), torch.cat([latents, drawn.y]))
