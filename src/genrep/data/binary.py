"""Binary images drawn from grey ones: x ~ Bernoulli(grey / 255), each pixel by itself.

In training the images are drawn anew in every update; what a model is measured on is drawn once, for all alike: a pixel
of a split is 1 where `numpy.random.RandomState(seed).randint(0, 255, shape, numpy.uint8)` is below its grey value, with
seed 0 for the test split, 1 for validation and 2 for training (the draw that is seen outside updates).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genrep.contracts import Batch, DataSpec
from genrep.data.batches import InMemory
from genrep.data.splits import Splits

_WHITE = 255
_SEEDS = {"test": 0, "validation": 1, "train": 2}


class Redrawn(InMemory):
    """Binary images (N, *shape) as they were drawn once, and the grey values they are drawn from anew in training.

    Indexing is a function of the index alone, as of any data; `draw` takes the noise of the update from the global
    generator, which is set anew for every update, so that a run that stops and resumes sees the same images.
    """

    def __init__(self, x: Tensor, y: Tensor | None, spec: DataSpec, grey: Tensor) -> None:
        assert grey.shape == x.shape, (grey.shape, x.shape)
        super().__init__(x, y, spec)
        self.grey = grey

    def draw(self, index: Tensor) -> Batch:
        """These examples, drawn anew: P(pixel = 1) = grey / 255, exactly."""
        index = index.to(self.x.device)
        grey = self.grey.index_select(0, index)
        below = torch.randint(0, _WHITE, grey.shape, dtype=torch.uint8, device=grey.device) < grey
        return Batch(below.to(torch.uint8), None if self.y is None else self.y.index_select(0, index))

    def relabelled(self, y: Tensor | None, spec: DataSpec) -> Redrawn:
        """The same examples with other labels."""
        return Redrawn(self.x, y, spec, self.grey)

    @property
    def nbytes(self) -> int:
        """Bytes that the examples take."""
        return super().nbytes + self.grey.nbytes

    def to(self, device: torch.device | str) -> Redrawn:
        """The same examples on `device`."""
        there = super().to(device)
        return Redrawn(there.x, there.y, self.spec, self.grey.to(device))


def bernoulli(splits: Splits) -> Splits:
    """Grey images of 256 levels as binary ones: training re-drawn in every update, the others drawn once."""
    drawn: dict[str, InMemory] = {}
    for name, seed in _SEEDS.items():
        data = getattr(splits, name)
        assert isinstance(data, InMemory)
        assert data.spec.levels == _WHITE + 1, data.spec
        spec = data.spec._replace(levels=2)
        noise = np.random.RandomState(seed).randint(0, _WHITE, tuple(data.x.shape), np.uint8)
        x = (torch.from_numpy(noise) < data.x).to(torch.uint8)
        drawn[name] = Redrawn(x, data.y, spec, data.x) if name == "train" else InMemory(x, data.y, spec)
    told = "binary: pixels drawn with probability grey / 255; in training anew in every update, else once, fixed seeds"
    about = {**splits.about, "inferred": [*splits.about["inferred"], told]}
    return Splits(splits.name, drawn["train"], drawn["validation"], drawn["test"], about)
