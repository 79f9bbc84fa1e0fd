"""Training of a diffusion model and a classifier on one shared encoder, with labels for some examples or for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.diffusion import Denoiser
from genrep.distributions.joint import JointDiffusion, JointLabel
from genrep.nets.unet import Encoded
from genrep.objectives.denoising import Denoising


class Labelled(nn.Module):
    """Gathers labelled examples of several batches until `capacity` have come together.

    x (capacity, *shape) inside the domain and y (capacity,), of which the first `count` wait.
    """

    x: Tensor
    y: Tensor
    count: Tensor

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        if capacity < 1:
            raise ValueError(f"Expected gather >= 1, got {capacity}.")
        self.capacity = capacity
        self.register_buffer("x", torch.zeros(capacity, *shape))
        self.register_buffer("y", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Those that wait and the labelled ones of this batch, in whole multiples of the capacity; the rest waits."""
        known, waiting = y >= 0, int(self.count)
        x, y = torch.cat([self.x[:waiting], x[known]]), torch.cat([self.y[:waiting], y[known]])
        enough = len(x) // self.capacity * self.capacity
        rest = len(x) - enough
        self.x[:rest], self.y[:rest] = x[enough:], y[enough:]
        self.count.fill_(rest)
        return (x[:enough], y[:enough]) if enough else None


class Joint(Objective):
    """L = L_diffusion(x_t) + w (-log p(y | x_0) [- log p(y | x_t)]), minimised.

    Deja et al. (2023), eq. 6.8 and 6.10 of the thesis, where the signs of the diffusion's terms are printed wrong. The
    noisy classifier, if there is one, is trained in addition to that of x_0; where the whole batch is labelled it reads
    the same pass of the encoder over x_t as the denoiser. Labelled examples of partly labelled batches are gathered
    first; a batch without labels leaves the classifier and its statistics as they were.

    Args:
        denoising: The diffusion's loss.
        weight: w; 0: the diffusion alone, the classifier is neither evaluated nor trained.
        noisy: Whether the classifier also learns from x_t.
        gather: How partly labelled batches are put together, or None for data whose labels are all known.
        diffusion: Weight of the diffusion's loss; 0: a plain classifier on the same encoder.
        augment: Of the images that the classifier of x_0 learns from.
    """

    probation = 2000  # with a label for one example in a hundred the classifier waits long for its first step

    def __init__(
        self,
        denoising: Denoising,
        *,
        weight: float,
        noisy: bool,
        gather: Labelled,
        diffusion: float = 1.0,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if min(weight, diffusion) < 0 or not weight + diffusion > 0:
            raise ValueError(f"Expected weights >= 0, one of them above 0, got {weight} and {diffusion}.")
        self.terms = {name: diffusion * w for name, w in denoising.weights.items()} if diffusion else {}
        if weight:
            self.terms |= {"cross_entropy": weight, "error_rate": 0.0}
            self.terms |= {"noisy_cross_entropy": weight} if noisy else {}
        whole = ("generative.diffusion.denoiser", "inference.label.head")
        encoder = tuple(f"inference.label.net.{part}" for part in ("embed", "stem", "down", "encoder", "middle"))
        super().__init__(learns=whole[: 2 if weight else 1] if diffusion else (*encoder, whole[1]))
        self.denoising, self.gather, self.augment = denoising, gather, augment
        self.weight, self.noisy, self.diffusion = weight, noisy and weight > 0, diffusion

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        generative, x = cast(JointDiffusion, model.generative), model.domain.inward(batch.x)
        label, plain = cast(JointLabel, model.inference.label), generative.diffusion
        terms, encoded = Terms(), None
        self.denoising.training = self.training  # as the trainer does for an objective of its own
        if self.diffusion:
            drawn = self.denoising.draw(plain, x)
            encoded = label.net.encode(drawn.x, drawn.t)
            found = cast(Denoiser, plain.denoiser).read(drawn.x, label.net.decode(encoded), drawn.t)
            terms |= self.denoising.losses(plain, x, drawn, found)
        if self.weight:
            terms |= self._classify(model, x, batch.y, encoded)
        return terms

    def _classify(self, model: Model, x: Tensor, y: Tensor | None, encoded: Encoded | None) -> Terms:
        """Terms of the labelled examples that it is time to learn from; none in most of the updates where few are."""
        if y is None:
            raise ValueError("A classifier needs labels, and this data set has none.")
        if bool((y >= 0).all()):
            return self._learn(model, x, y, encoded)
        found = self.gather(x, y) if self.training and self.diffusion else _known(x, y)
        if found is None and not self.diffusion:
            raise ValueError("A plain classifier (diffusion=0) needs labelled examples, and a batch has none of them.")
        return {} if found is None else self._learn(model, found[0], found[1], None)

    def _learn(self, model: Model, x: Tensor, y: Tensor, encoded: Encoded | None) -> Terms:
        """`encoded`: the encoder's pass over noised x, where there is one already."""
        label = cast(JointLabel, model.inference.label)
        clean = self.augment(x) if self.augment is not None and self.training else x
        logits = label(clean).logits
        terms = {
            "cross_entropy": F.cross_entropy(logits, y, reduction="none"),
            "error_rate": (logits.argmax(1) != y).float(),
        }
        if self.noisy:
            if encoded is None:
                drawn = self.denoising.draw(cast(JointDiffusion, model.generative).diffusion, x)
                encoded = label.net.encode(drawn.x, drawn.t)
            terms["noisy_cross_entropy"] = F.cross_entropy(label.of(encoded).logits, y, reduction="none")
        return terms


def _known(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    known = y >= 0
    return (x[known], y[known]) if bool(known.any()) else None
