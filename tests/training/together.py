"""What the processes of test_ranks.py do: `torchrun ... together.py JOB FOLDER`; alone, the reference."""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from genrep import storage
from genrep.contracts import DataSpec, Inference, Model
from genrep.models import build
from genrep.training import ranks
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode
from tests.training.test_fit import Duel, Likelihood, Normal, digits, normal_data

SETTINGS = Settings(steps=6, batch=8, lr=0.01, warmup=2, log_every=4, device="cpu", horizon=6, schedule="cosine")


@contextlib.contextmanager
def in_double():
    """Float64 all through: the casts to float32 that guard against half precision do nothing."""
    kept = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = kept


class Sometimes(Likelihood):
    """A term that some batches lack, and a count that belongs to its rank."""

    terms = {"nll": 1.0, "far": 0.1, "never": 1.0}

    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(2))

    def forward(self, model, batch, player="model"):
        if self.training:
            self.sum += batch.x.sum(0)
        terms = super().forward(model, batch, player)
        far = batch.x[:, 0] > 3.3
        return terms | {"far": terms["nll"][far]} if far.any() else terms


class Normalised(Normal):
    """Batch statistics of what is seen in training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)


class Watching(Likelihood):
    def forward(self, model, batch, player="model"):
        return {"nll": -model.generative().log_prob(model.generative.norm(batch.x))}


class Breaks(Likelihood):
    """Not finite on one rank only."""

    def forward(self, model, batch, player="model"):
        terms = super().forward(model, batch, player)
        return {"nll": terms["nll"] / 0} if ranks.rank() == 1 else terms


def toy(objective, generative=Normal):
    return Model(DataSpec((2,)), generative(), Inference(), objective())


MAKE = {
    "vae": lambda: build("vae", digits().spec, latent=3, width=8),
    "ddpm": lambda: build("ddpm", digits().spec, timesteps=8, width=8, multipliers=(1, 2)),
    "dcgan": lambda: build("dcgan", digits().spec, latent=3, width=8, loss="wasserstein_gp"),
    "duel": lambda: toy(Duel),
    "sometimes": lambda: toy(Sometimes),
    "norm": lambda: toy(Watching, Normalised),
    "breaks": lambda: toy(Breaks),
}


def data(name):
    found = digits() if name in ("vae", "ddpm", "dcgan") else normal_data()
    if found.x.is_floating_point():
        found.x = found.x.to(torch.get_default_dtype())
    return found


def train(name, folder, *, resume=False, **changes):
    """Twice the updates where two players take turns; validated, so that what the ranks decide shows in the log."""
    torch.manual_seed(0 if not resume else 7)
    settings = dataclasses.replace(SETTINGS, validate_every=3, **changes)
    held_out = data(name)
    return fit(MAKE[name](), data(name), settings, validation=held_out, folder=folder, mode=Mode(), resume=resume)


def all_jobs(folder):
    with in_double():
        for name in ("vae", "ddpm", "dcgan", "duel", "sometimes", "norm"):
            train(name, folder / name)
        train("duel", folder / "four", accumulate=2)
        train("vae", folder / "vae-sharded", sharded=True)
        train("ddpm", folder / "ddpm-two", accumulate=2)
        train_sharded("ddpm", folder)
        for name in ("vae", "duel", "sometimes", "norm"):
            train(name, folder / f"{name}-parts", steps=3)
            train(name, folder / f"{name}-parts", resume=True)
    told = {}
    for name, place in (("breaks", folder / "breaks"), ("duel", folder / "taken")):
        try:
            train(name, place)
        except (FloatingPointError, ValueError) as error:
            told[place.name] = f"{type(error).__name__}: {error}"
    auto = dataclasses.replace(SETTINGS, precision="auto", channels_last="auto")
    told["mode"] = fit(MAKE["vae"](), digits(), auto).mode
    for model, changes in (("duel", {}), ("vae", {"channels_last": "yes"}), ("vae", {"snapshot_every": 2})):
        try:
            train(model, None, sharded=True, **changes)
        except ValueError as error:
            told[f"sharded {model} {changes}"] = str(error)
    (folder / f"told-{ranks.rank()}.json").write_text(json.dumps(told))


def train_sharded(name, folder):
    """Whole, cut and accumulated; afterwards each rank samples from what training left in its model."""
    torch.manual_seed(0)
    model, settings = MAKE[name](), dataclasses.replace(SETTINGS, validate_every=3, sharded=True)
    fit(model, data(name), settings, validation=data(name), folder=folder / f"{name}-sharded", mode=Mode())
    assert not any(isinstance(t, DTensor) for t in storage.state(model).values())
    storage.save(folder / f"{name}-samples-{ranks.rank()}.safetensors", {"x": model.sample(4, seed=0)}, {})
    train(name, folder / f"{name}-sharded-parts", sharded=True, steps=3)
    train(name, folder / f"{name}-sharded-parts", sharded=True, resume=True)
    train(name, folder / f"{name}-sharded-two", sharded=True, accumulate=2)


def endless(folder):
    """Until it is stopped. It is slow to tell why: torchrun has noticed by then, and ends all that is left."""
    sys.excepthook = tell_late
    settings = dataclasses.replace(SETTINGS, steps=10**6, checkpoint_seconds=0.2)
    fit(MAKE["duel"](), normal_data(), settings, folder=folder, mode=Mode())


def tell_late(*found):
    time.sleep(0.5)
    sys.__excepthook__(*found)


if __name__ == "__main__":
    {"all": all_jobs, "endless": endless}[sys.argv[1]](Path(sys.argv[2]))
