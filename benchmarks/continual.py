"""Continual learning on MNIST in 5 tasks of two classes: seconds of a whole run at equal epochs, scores of both.

Multiband VAE, dense, batch 64, one epoch of local and two of global training a task (the published ratio),
against the same recipe in a plain float32 loop: a DataLoader without workers, every batch encoded and every draw of an
earlier task made when it is needed, Adam. Both are scored by one function: the mean over tasks of the Fréchet distance
of 1,000 draws of each task to test examples. A second row gives ours one epoch a task: what the rival's score costs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import alternate, comparison, precision, seconds, versions
from genrep.continual import loop, scores
from genrep.contracts import seeded
from genrep.data.streams import Stream, by_task
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor
from genrep.interface import continual as runs
from genrep.training.settings import Settings

TASKS, BATCH, EPOCHS, LATENT, BINARY, ALIGNED = 5, 64, 3, 8, 4, 384
MODEL = {"network": "dense", "likelihood": "bernoulli", "latent": LATENT, "binary": BINARY}


def run() -> Iterator[dict[str, Any]]:
    stream, whole = runs.read(runs.Source(data=("mnist",), tasks=TASKS))
    told, features = by_task(stream), extractor("auto", whole)
    kept: dict[str, Callable[[int], Tensor]] = {}

    def mine(epochs: int) -> None:
        kept["ours"] = _ours(told, epochs)

    def theirs() -> None:
        kept["rival"] = _rival(stream)

    def row(ours: float, how: str) -> dict[str, Any]:
        return comparison(
            f"Multiband VAE on MNIST, {TASKS} tasks, {EPOCHS} epochs each, batch {BATCH}, against a plain loop{how}",
            ours,
            slow,
            target=3.0,
            mean_frechet=_score(kept["ours"], stream, features),
            rival_mean_frechet=theirs_scores,
            versions=versions(),
        )

    fast, slow = alternate(lambda: mine(EPOCHS), theirs, repeats=1)
    theirs_scores = _score(kept["rival"], stream, features)
    yield row(fast, "")
    yield row(seconds(lambda: mine(1)), ", ours 1 epoch each")


def _score(draw: Callable[[int], Tensor], stream: Stream, features: Extractor) -> float:
    """Mean over tasks of the Fréchet distance of 1,000 draws (bytes) to 1,000 test examples."""
    with seeded(0):
        found = [
            scores.frechet(features(task.test[torch.arange(1000)].x), features(draw(t)), {}, 0).value
            for t, task in enumerate(stream.tasks)
        ]
    return round(sum(found) / len(found), 1)


def _ours(stream: Stream, epochs: int) -> Callable[[int], Tensor]:
    chosen = runs.Chosen("multiband_vae", "multiband", MODEL | {"conditional": True}, {"local_share": 1 / 3})
    steps = round(epochs * sum(len(t.train) for t in stream.tasks) / TASKS / BATCH)
    found = loop.run(
        runs.maker(chosen, chosen.options, stream, 0),
        stream,
        Settings(steps=steps, batch=BATCH, precision=precision(), device="cpu"),
    )
    return lambda t: found.model_for(t).sample(1000, seed=t)


# ---- the plain loop --------------------------------------------------------------------------------------------------


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])


class _Global(nn.Module):
    """Translator and decoder, and the mean bits of each task."""

    mean_bits: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bits, self.code = _mlp(BINARY, 8, 12), _mlp(3, 18, 12)
        self.joined = _mlp(LATENT + 24, 192, ALIGNED)
        self.decoder = _mlp(ALIGNED, 512, 1024, 784)
        self.register_buffer("mean_bits", torch.full((TASKS, BINARY), 0.5))

    def z(self, normal: Tensor, bits: Tensor, task: Tensor) -> Tensor:
        code = (task[:, None] * 9 % 8 >> torch.arange(3) & 1).float() * 2 - 1
        return self.joined(torch.cat([normal, self.bits(bits), self.code(code)], 1))

    def forward(self, normal: Tensor, bits: Tensor, task: Tensor) -> Tensor:
        return self.decoder(self.z(normal, bits, task))

    @torch.no_grad()
    def draw(self, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normal, bits = torch.randn(len(task), LATENT), torch.bernoulli(self.mean_bits[task])
        return normal, bits, self(normal, bits, task).sigmoid()


class _Local(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.rest = _mlp(784, 512, 128, 64, 2 * LATENT + BINARY), _Global()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        mean, log_std, logits = self.encoder(x).split((LATENT, LATENT, BINARY), 1)
        u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        soft = ((logits + u.logit()) / 0.5).sigmoid()
        bits = (soft > 0.5).float() + soft - soft.detach()
        return mean, log_std, logits, mean + log_std.exp() * torch.randn_like(mean), bits


def _bce(out: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1).mean()


def _train_local(local: _Local, loader: Any, task: int, epochs: int) -> None:
    optimiser = torch.optim.Adam(local.parameters(), 1e-3)
    for _ in range(epochs):
        seen = []
        for (x,) in loader:
            mean, log_std, logits, normal, bits = local.encode(x)
            rate = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean()
            loss = _bce(local.rest(normal, bits, torch.full((len(x),), task)), x) + rate
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen.append(logits.detach().sigmoid())
        local.rest.mean_bits[task] = torch.cat(seen).mean(0)


def _train_global(model: _Global, local: _Local, loader: Any, data: Tensor, task: int, epochs: int) -> None:
    frozen, ratio = copy.deepcopy(model), min(1.5, 0.5 * task)
    for parts in ([model.bits, model.code, model.joined], [model]):
        optimiser = torch.optim.Adam([p for part in parts for p in part.parameters()], 1e-3)
        for i in range(1 if len(parts) > 1 else epochs):
            for step, (x,) in enumerate(loader):
                if len(parts) > 1 and step >= len(loader) // 10:
                    break
                now = torch.full((len(x),), task)
                old = torch.randint(task, (round(ratio * len(x)),))
                with torch.no_grad():
                    *_, normal, bits = local.encode(x)
                    past_normal, past_bits, target = frozen.draw(old)
                    if len(parts) == 1 and (i or step):
                        target = _forget(model, local, data, task, (past_normal, past_bits, old), target)
                out = model(torch.cat([normal, past_normal]), torch.cat([bits, past_bits]), torch.cat([now, old]))
                loss = _bce(out, torch.cat([x, target]))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def _forget(model: _Global, local: _Local, data: Tensor, task: int, past: Any, target: Tensor) -> Tensor:
    """Against 1,000 random examples, as the authors do."""
    x = data[torch.randint(len(data), (1000,))]
    *_, normal, bits = local.encode(x)
    new = F.normalize(model.z(normal, bits, torch.full((len(x),), task)), dim=1)
    similarity, index = (F.normalize(model.z(*past), dim=1) @ new.T).max(1)
    return torch.where((similarity >= 0.9)[:, None], x[index], target)


def _rival(stream: Stream) -> Callable[[int], Tensor]:
    torch.manual_seed(0)
    model = _Global()
    for task, splits in enumerate(stream.tasks):
        x = splits.train[torch.arange(len(splits.train))].x.flatten(1).float() / 255
        loader = DataLoader(TensorDataset(x), BATCH, shuffle=True)
        local = _Local()
        local.rest.load_state_dict(model.state_dict())
        _train_local(local, loader, task, EPOCHS if task == 0 else EPOCHS // 3)
        model.mean_bits.copy_(local.rest.mean_bits)
        if task == 0:
            model.load_state_dict(local.rest.state_dict())
        else:
            _train_global(model, local, loader, x, task, EPOCHS - EPOCHS // 3)

    def draw(task: int) -> Tensor:
        *_, x = model.draw(torch.full((1000,), task))
        return (x * 255).round().byte().unflatten(1, (1, 28, 28))

    return draw
