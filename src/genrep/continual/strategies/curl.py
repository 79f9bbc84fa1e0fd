"""Continual unsupervised representation learning."""

from __future__ import annotations

from typing import cast

import torch

from genrep.continual.coders import check_coder, only
from genrep.continual.memory import Counts
from genrep.continual.mixture import Assigned, Components, Unsupervised, bound, expand
from genrep.continual.penalty import check_one_player
from genrep.continual.replay import Memories, check_labels, check_share, replay_share
from genrep.continual.strategy import Phase, Setting, Strategy, viewed
from genrep.contracts import Data, Inference, Model, Unsupported
from genrep.data.batches import InMemory
from genrep.distributions.heads import GaussianHead
from genrep.distributions.latent import LatentVariable
from genrep.objectives.autoencoding import inside


class Curl(Strategy):
    """A mixture of Gaussians as latent space that grows, and replays itself."""

    kept = ("model", "counts")

    def __init__(
        self, setting: Setting, components: int, poor: int, deviations: float, wait: int, share: float
    ) -> None:
        super().__init__()
        base, self.counts, self.share = setting.make(), Counts(setting.spec), share
        check_coder(base, "curl")
        check_one_player(base, "curl")
        check_labels(base, "curl")
        if only(base).weights.keys() != {"distortion", "rate"}:
            raise Unsupported(
                "Strategy curl needs a model trained by distortion and rate alone, this one has the terms "
                f"{', '.join(only(base).weights)}: set model=vae."
            )
        if components < 1 or poor < 1 or wait < 0 or deviations < 0:
            raise ValueError(
                "Expected components and poor >= 1, wait and deviations >= 0, got "
                f"{components}, {poor}, {wait} and {deviations}."
            )
        check_share(share)
        posterior = cast(GaussianHead, base.inference.latent)
        with torch.no_grad():
            latent = posterior(torch.zeros(1, *base.data.shape)).mean.shape[1:]
        if len(latent) != 1:
            raise Unsupported(f"Strategy curl needs a latent vector, this model's latent is {tuple(latent)}.")
        labels = setting.spec.classes if base.generative.reads_y else 0
        self.prior = Components(latent[0], components, labels)
        self.latent = Assigned(posterior, self.prior)
        self.poor, self.wait = poor, wait
        self.model = Model(
            base.data,
            LatentVariable(self.prior, cast(GaussianHead, base.generative.get_submodule("likelihood"))),
            Inference(latent=self.latent),
            Unsupervised(self.prior, dict(only(base).weights), deviations, wait),
            domain=base.domain,
            training=base.training_options,
        )

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)
        objective = cast(Unsupervised, only(self.model))

        def start() -> None:
            objective.gathered.clear()
            if seen := self.counts.total:
                objective.taught_by(Memories(self.model, self.counts), replay_share(self.share, seen, len(data)))

        def after_update(step: int) -> None:
            g, room = objective.gathered, self.prior.active < self.prior.capacity
            first = g.since == step + 1  # of a task: nothing to wait for
            if room and g.count >= self.poor and (first or g.since >= self.wait):
                expand(self.prior, self.latent, g)

        def finish() -> None:
            self._survey(data)
            self.counts.add(data)

        # a new component changes weights at once, so they are what is kept: no average
        fit = {"ema": 0.0, "after_update": after_update}
        return [Phase(viewed(self.model, objective), lambda: data, start=start, finish=finish, fit=fit)]

    @torch.no_grad()
    def _survey(self, data: InMemory) -> None:
        """Count components of the task's examples, and note how well they are described."""
        values = []
        for index in torch.arange(len(data)).split(256):
            batch = data[index]
            x, y = inside(self.model, batch).to(self.model.device), None
            if self.model.generative.reads_y and batch.y is not None:
                y = batch.y.to(x.device)
            found = bound(self.model, x, y)
            label = found.log_label.exp()
            row = torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y.clamp_min(0)
            for c in row.unique().tolist():
                self.prior.counts[c, : label.shape[1]] += label[row == c].sum(0)
            weights = only(self.model).weights
            values.append(-sum(weights[key] * t for key, t in found.terms(label).items()))
        value = torch.cat(values)
        self.prior.level.copy_(value.mean())
        self.prior.spread.copy_(value.std())


def curl(
    setting: Setting,
    *,
    components: int = 16,
    poor: int = 100,
    deviations: float = 3.0,
    wait: int = 100,
    share: float = 0.0,
) -> Strategy:
    """CURL (Rao et al., 2019): a mixture of Gaussians as latent space, which grows where data are described poorly.

    Maximises sum_k q(k | x) [log p(x | z_k) - KL(q(z | x, k) || p(z | k))] - KL(q(k | x) || p(k)). Draws of the frozen
    model are replayed with the component that they came from. Every component in use is decoded, which costs as many
    passes of the decoder.

    Args:
        components: At most.
        poor: Examples of a poor bound that ask for a new component.
        deviations: A bound is poor that lies so many standard deviations below the mean of the last task.
        wait: Updates between two expansions within a task.
        share: Of each batch that is replayed; 0: that of earlier examples among all seen.
    """
    return Curl(setting, components, poor, deviations, wait, share)
