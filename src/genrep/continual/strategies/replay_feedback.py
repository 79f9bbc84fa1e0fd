"""Replay through feedback: the generative model is the classifier, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from genrep.continual.binary import SoftTargets
from genrep.continual.coders import check_coder, only
from genrep.continual.memory import Counts
from genrep.continual.penalty import check_one_player
from genrep.continual.replay import Memories, Mixed, check_labels, check_share, replay_share
from genrep.continual.strategy import Phase, Setting, Strategy, viewed
from genrep.contracts import Batch, Conditional, Data, Inference, Model
from genrep.data.batches import InMemory
from genrep.nets.condition import encode_condition
from genrep.objectives.within import Jointly


class Head(Conditional):
    """p(y | x) = softmax(W m(x) + b), m the mean of q(z | x) where y is unknown."""

    measure = "mass"
    can_sample = False

    def __init__(self, posterior: Conditional, latent: int, classes: int) -> None:
        super().__init__()
        self.posterior, self.linear = posterior, nn.Linear(latent, classes)

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Categorical:
        return Categorical(logits=self.linear(self.posterior(x).mean.flatten(1)), validate_args=False)


class OneHot:
    """Data whose labels are vectors, so that soft ones can stand beside them."""

    def __init__(self, data: InMemory) -> None:
        self.data, self.spec = data, data.spec

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Tensor) -> Batch:
        x, y = self.data[index]
        return Batch(x, encode_condition(y, self.spec.classes, x))


class Feedback(Strategy):
    """What the model draws of earlier tasks, it labels itself."""

    kept = ("model", "counts")

    def __init__(self, setting: Setting, share: float, weight: float) -> None:
        super().__init__()
        base, self.counts, self.share = setting.make(), Counts(setting.spec), share
        check_coder(base, "replay_feedback")
        check_one_player(base, "replay_feedback")
        check_labels(base, "replay_feedback")
        if setting.spec.classes < 2:
            raise ValueError(
                f"Strategy replay_feedback learns labels of 2 classes or more, got {setting.spec.classes}."
            )
        check_share(share)
        posterior = base.inference.latent
        head = Head(posterior, _width(base), setting.spec.classes)
        self.model = Model(
            base.data,
            base.generative,
            Inference(latent=posterior, label=head),
            Jointly(only(base), SoftTargets("cross_entropy", weight, learns=("inference",))),
            domain=base.domain,
            training=base.training_options,
        )

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)
        known = OneHot(data)

        def mixed() -> Data:
            if not self.counts.total:
                return known
            memories = Memories(self.model, self.counts)
            inward = None if data.spec.levels is None else self.model.domain.inward

            def draw(n: int) -> Batch:
                x = memories.means(n).x
                with torch.no_grad():
                    told = memories.model.inference.label(memories.model.domain.inward(x))
                return Batch(x, told.probs)

            return Mixed(known, draw, replay_share(self.share, self.counts.total, len(data)), inward)

        return [Phase(viewed(self.model, only(self.model)), mixed, finish=lambda: self.counts.add(data))]


def _width(model: Model) -> int:
    """Numbers in a code."""
    example = torch.zeros(1, *model.data.shape, device=model.device)
    with torch.no_grad():
        return model.inference.latent(example).mean[0].numel()


def replay_feedback(setting: Setting, *, share: float = 0.0, weight: float = 10.0) -> Strategy:
    """Replay through feedback (van de Ven, Siegelmann & Tolias, 2020): one network generates, classifies and labels.

    L(x) + weight CE(y, p(y | x)), p(y | x) read from the mean of q(z | x); examples of earlier tasks are means of the
    frozen decoder with the label probabilities that the frozen model gives them. It reports accuracy, too.

    Args:
        share: Of each batch that is replayed; 0: that of earlier examples among all seen.
        weight: Of the cross-entropy.
    """
    return Feedback(setting, share, weight)
