"""The pairs that Multiband VAE learns from: latents with targets, of new data and of draws; controlled forgetting."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.contracts import Batch, Conditional, Data, Model, evaluating
from genrep.distributions.bands import Band, BandMixtures, BandPrior
from genrep.distributions.basic import Bernoulli, Gaussian
from genrep.nets.translator import Translator
from genrep.objectives.bands import band_of

BLOCK = 1024  # examples in one pass without gradients


def nearest_above(old: Tensor, new: Tensor, threshold: float) -> Tensor:
    """For each row of `old` (M, D) the row of `new` (N, D) of the largest cosine similarity, -1 where it is below.

    sim(z_j) = max_q cos(z_j, z_q) >= threshold. Shape (M,) int64.
    Reference: Deja et al. (2022), "Multiband VAE", controlled forgetting; there > on 1,000 random rows in the code.
    """
    directions, found = F.normalize(new, dim=1), []
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


class Draws:
    """What earlier bands draw: (lambda, code) and the means of the decoder as it was, `n` of them, made in blocks.

    `prior` draws the latents, BandMixtures or the BandPrior of the generative part.
    """

    def __init__(self, generative: Conditional, prior: BandPrior | BandMixtures, bands: int, n: int) -> None:
        likelihood, device = generative.get_submodule("likelihood"), prior.counts.device
        weights = prior.counts[:bands].float()
        band = torch.multinomial(weights, n, replacement=True).to(device)
        with torch.no_grad(), evaluating(generative):
            self.latents = prior(y=band).sample()
            self.x = torch.cat([likelihood(z).mean for z in self.latents.split(BLOCK)])

    def __len__(self) -> int:
        return len(self.x)

    def forget(self, encodings: Encodings, translator: Translator, threshold: float) -> int:
        """Targets whose z is near that of a new example become that example; how many did."""
        with torch.no_grad():
            old, new = (
                torch.cat([translator(part) for part in latents.split(BLOCK)])
                for latents in (self.latents, encodings.likeliest())
            )
            index = nearest_above(old, new, threshold)
            which = (index >= 0).nonzero()[:, 0]
            for part in which.split(BLOCK):
                self.x[part] = encodings.targets(index[part])
        return len(which)


class Pairs:
    """Batches of (x, (lambda, code)): those of the new examples asked for, and `ratio` times as many draws.

    Beside n examples come floor(ratio n + u) draws, u uniform in [0, 1), so that they are ratio n on average. Noise is
    that of the update, from the global generator, so that a run that resumes sees the same batches.
    """

    def __init__(self, data: Data, encodings: Encodings, draws: Draws, ratio: float) -> None:
        self.spec, self.encodings, self.draws, self.ratio = data.spec, encodings, draws, ratio

    def __len__(self) -> int:
        return len(self.encodings)

    def __getitem__(self, index: Tensor) -> Batch:
        k = int(self.ratio * len(index) + float(torch.rand(())))
        old = torch.randint(len(self.draws), (k,))
        x, latents = self.encodings.targets(index), self.encodings.draw(index)
        return Batch(
            torch.cat([x, self.draws.x[old]]),
            torch.cat([latents, self.draws.latents[old]]),
        )
