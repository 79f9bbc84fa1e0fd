"""Streams, models and settings for tests of continual learning: small and quick."""

import torch
from torch import nn

from genrep.contracts import Conditional, DataSpec, Inference, Model, Objective
from genrep.data.batches import InMemory
from genrep.data.splits import Splits
from genrep.data.streams import Stream, class_incremental
from genrep.distributions.basic import Gaussian
from genrep.models import build
from genrep.training.settings import Settings

QUICK = Settings(steps=6, batch=8, warmup=2, log_every=5, precision="float32", channels_last="no", device="cpu", seed=3)


class Normal(Conditional):
    """p(x) = N(mean, 1) with a learnt mean."""

    def __init__(self, width=2):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width))

    def forward(self, *, y=None):
        return Gaussian(self.mean, torch.zeros_like(self.mean), batched=False)


class Likelihood(Objective):
    terms = {"nll": 1.0}

    def __init__(self):
        super().__init__(learns=("generative",))

    def forward(self, model, batch, player="model"):
        return {"nll": -model.generative().log_prob(batch.x)}


def normal():
    return Model(DataSpec((2,)), Normal(), Inference(), Likelihood())


def part(centre, n=60, seed=0):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + centre
    return InMemory(x, None, DataSpec((2,)))


def normal_stream(tasks=3, n=60):
    sets = [Splits(f"task {t}", part(t, n, t), part(t, 9, t + 50), part(t, 30, t + 90), {}) for t in range(tasks)]
    return Stream("normal", tuple(sets), {"counts": {"train": [n] * tasks}})


def splits(n=240, classes=4, seed=0):
    """Grey 8 x 8 images whose brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    spec, parts = DataSpec((1, 8, 8), levels=17, classes=classes), []
    for size in (n, n // 4, n // 2):
        y = torch.arange(size) % classes
        x = torch.randint(0, 5, (size, 1, 8, 8), generator=generator) + (y * 4).clamp_max(12)[:, None, None, None]
        parts.append(InMemory(x.to(torch.uint8), y, spec))
    return Splits("grey", *parts, {"class_names": [str(c) for c in range(classes)]})


def image_stream(tasks=2):
    return class_incremental(splits(), tasks)


def vae(seed=0, **options):
    torch.manual_seed(seed)
    return build("vae", image_stream().spec, latent=3, width=8, network="dense", **options)
