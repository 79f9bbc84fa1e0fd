"""Training a dense VAE on MNIST: images per second and held-out loss, against the trainer of pythae 0.1.2.

The same network (784-512-16-512-784), the same images, batch 128, Adam at 1e-3 (genrep: AdamW without decay), as many
passes over the training set; a run is a whole call of `genrep.fit` or `BaseTrainer.train`, the measurement of the
fastest arithmetic, averaging of weights and checkpoints included. The held-out loss is the same for both: minus the
evidence lower bound in nats, Bernoulli terms on grey values, mean over the test images.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import alternate, comparison, flops, precision, versions
from genrep import data as data_sets
from genrep.contracts import Model, evaluating, seeded
from genrep.evaluation.cost import parameters
from genrep.interface import runs

EPOCHS, BATCH, LATENT, WIDTH = 5, 128, 16, 512
DENSE = {"latent": LATENT, "network": "dense", "width": WIDTH, "depth": 1, "likelihood": "bernoulli"}


def ours(splits: Any, epochs: int, folder: str) -> Model:
    steps = epochs * len(splits.train) // BATCH
    return runs.fit(
        "vae", splits, steps=steps, batch=BATCH, options=DENSE, out=f"{folder}/run", samples=0, progress=False
    )


def rival_model() -> nn.Module:
    from pythae.models import VAE, VAEConfig

    return VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce"))


def rival(images: Tensor, epochs: int, folder: str, *, bfloat16: bool = False) -> nn.Module:
    """What pythae's own training does, with its progress bars written to nowhere."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    how = BaseTrainerConfig(
        output_dir=folder, num_epochs=epochs, per_device_train_batch_size=BATCH, learning_rate=1e-3, no_cuda=True
    )
    model = rival_model()
    trainer = BaseTrainer(model, BaseDataset(images, torch.zeros(len(images))), training_config=how)
    with (
        open("/dev/null", "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        trainer.train()
    logging.disable(logging.NOTSET)
    return model.eval()


def held_out_ours(model: Model, x: Tensor) -> float:
    from genrep.contracts import Batch

    with torch.no_grad(), seeded(0), evaluating(model):
        terms = model(Batch(x))
    return float((terms["distortion"] + terms["rate"]).double().mean())


def held_out_rival(model: Any, images: Tensor) -> float:
    with torch.no_grad(), seeded(0):
        return float(model({"data": images}).loss)


def run() -> Iterator[dict[str, Any]]:
    splits = data_sets.load("mnist")
    every = torch.arange(len(splits.train))
    images, test = splits.train[every].x.float() / 255, splits.test[torch.arange(len(splits.test))].x
    n, one = EPOCHS * len(images), torch.zeros(1, 1, 28, 28)
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[str, Any] = {}

        def mine() -> None:
            with tempfile.TemporaryDirectory() as place:
                kept["ours"] = ours(splits, EPOCHS, place)

        settings = [("its defaults", False), ("bfloat16 autocast put around it", True)]
        for label, bfloat16 in settings if precision() == "bfloat16" else settings[:1]:

            def theirs() -> None:
                kept["rival"] = rival(images, EPOCHS, folder, bfloat16=bfloat16)  # noqa: B023

            fast, slow = alternate(mine, theirs)
            count = flops(lambda: kept["rival"]({"data": one})) / flops(lambda: kept["ours"].reconstruct(one.byte()))
            size = sum(p.numel() for p in kept["rival"].parameters()) / parameters(kept["ours"])
            yield comparison(
                f"vae training on MNIST, {EPOCHS} epochs, batch {BATCH}, against pythae's trainer with {label}",
                n / fast,
                n / slow,
                target=3.0 if not bfloat16 else 1.0,
                unit="images/s",
                larger_is_better=True,
                held_out_loss=round(held_out_ours(kept["ours"], test), 3),
                rival_held_out_loss=round(held_out_rival(kept["rival"], test.float() / 255), 3),
                rival_parameters_over_ours=round(size, 4),
                rival_flops_over_ours=round(count, 4),
                versions=versions("pythae"),
            )
