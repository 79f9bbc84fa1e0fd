"""BinPlay on split-MNIST: the whole training of five tasks, against the same recipe in a plain float32 loop.

The same dense networks (encoder and decoder 200-512-512-784, classifier 784-512-512-128-10), the same losses, numbers
of updates, batch, learning rates and codes; the plain loop is what one writes with a `DataLoader`, no workers: old
images and answers of the frozen classifier are computed for every batch, codes are taken one by one. It has neither
anomaly detection nor the copies of all codes for every example that the released code makes. Ours is what `genrep
continual` runs, in bfloat16 where the processor has it, checkpoints included. The score is the accuracy on all official
test images after the last task. A last row lets ours choose its codes and stop earlier: what the rival's score costs.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import alternate, comparison, precision, versions
from genrep import data as data_sets
from genrep import models
from genrep.continual import loop, strategies
from genrep.continual.codes import Codes
from genrep.continual.strategy import Setting
from genrep.contracts import seeded
from genrep.data.streams import Stream, class_incremental
from genrep.nets.mlp import MLP
from genrep.training.settings import Settings

STEPS, BATCH, BITS, WIDTH = 300, 128, 200, 512
SHARES = (0.2, 0.5)
DENSE = {"network": "dense", "width": WIDTH, "depth": 2}
OPTIONS = {
    "bits": BITS,
    "lr": 1e-3,
    "encoder_share": SHARES[0],
    "decoder_share": SHARES[1],
    **DENSE,
}


def ours(stream: Stream, folder: str | Path, steps: int, assignment: str) -> Callable[[Tensor], Tensor]:
    """The classifier after the last task."""

    def model() -> Any:
        with seeded(0):
            return models.build("classifier", stream.spec, **DENSE)

    def make() -> Any:
        with seeded(0):
            sizes = tuple(len(task.train) for task in stream.tasks)
            return strategies.build("binplay", Setting(model, stream.spec, sizes), **OPTIONS, assignment=assignment)

    how = Settings(steps=steps, batch=BATCH, precision=precision(), channels_last="no")
    found = loop.run(make, stream, how, folder=Path(folder)).model
    return lambda x: found.inference.label(found.domain.inward(x)).logits


class Images(Dataset):
    """Images, each with something of its own."""

    def __init__(self, x: Tensor, other: Tensor) -> None:
        self.x, self.other = x, other

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i].float() / 127.5 - 1, self.other[i]


def batches(x: Tensor, other: Tensor, updates: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """As many batches as there are updates, epoch after epoch."""
    loader = DataLoader(Images(x, other), batch_size=batch, shuffle=True, drop_last=True)
    done = 0
    while True:
        for found in loader:
            if done == updates:
                return
            done += 1
            yield found


def optimiser(net: nn.Module, lr: float, updates: int) -> tuple[Any, Any]:
    found = torch.optim.Adam(net.parameters(), lr=lr)
    return found, torch.optim.lr_scheduler.CosineAnnealingLR(found, updates)


def update(loss: Tensor, optimiser: Any, schedule: Any = None) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if schedule is not None:
        schedule.step()


def assigned(z: Tensor, codes: Tensor, taken: Tensor, *, at_once: bool) -> Tensor:
    """Algorithm 2, example by example; `at_once`: the distances of a batch by one product."""
    distance = torch.cdist(z, codes).square() if at_once else [(row - codes).square().sum(1) for row in z]
    chosen = []
    for row in distance:
        chosen.append(int(row.masked_fill(taken, torch.inf).argmin()))
        taken[chosen[-1]] = True
    return torch.tensor(chosen)


def find_codes(decoder: nn.Module, x: Tensor, codes: Tensor, updates: int, *, at_once: bool) -> Tensor:
    """Train an encoder with a decoder of its own; the place of the code of each image."""
    encoder, local = MLP((1, 28, 28), [WIDTH, WIDTH], (BITS,)), copy.deepcopy(decoder)
    adam = torch.optim.Adam([*encoder.parameters(), *local.parameters()], lr=1e-3)
    taken, warm_up = torch.zeros(len(x), dtype=torch.bool), round(0.15 * updates)
    for k, (images, _) in enumerate(batches(x, torch.zeros(len(x)), updates, BATCH)):
        z = encoder(images)
        loss = (local(z) - images).square().flatten(1).sum(1).mean()
        if k >= warm_up:
            if int((~taken).sum()) < BATCH:
                taken.zero_()
            with torch.no_grad():
                chosen = assigned(z, codes, taken, at_once=at_once)
            loss = loss + 10 * (z - codes[chosen]).square().sum(1).mean()
        update(loss, adam)
    taken.zero_()
    with torch.no_grad():
        found = [assigned(encoder(p.float() / 127.5 - 1), codes, taken, at_once=at_once) for p in x.split(BATCH)]
    return torch.cat(found)


def learn_codes(decoder: nn.Module, x: Tensor, codes: Tensor, first: int, updates: int) -> None:
    """Pairs of the task and of the frozen decoder, uniform over numbers. `codes`: of all numbers so far."""
    frozen = copy.deepcopy(decoder).eval()
    adam, schedule = optimiser(decoder, 1e-3 if first else 5e-3, updates)
    new = max(1, round(BATCH * len(x) / (first + len(x))))
    for images, code in batches(x, codes[first:], updates, new):
        with torch.no_grad():
            old_code = codes[torch.randint(max(first, 1), (BATCH - new,))]
            old = frozen(old_code)
        loss = (decoder(torch.cat([code, old_code])) - torch.cat([images, old])).square().flatten(1).sum(1).mean()
        update(loss, adam, schedule)


def learn_classes(net: nn.Module, decoder: nn.Module, y: Tensor, codes: Tensor, first: int, updates: int) -> None:
    """Decoded images of all tasks; of earlier ones with what the frozen classifier says."""
    frozen, adam = copy.deepcopy(net).eval(), torch.optim.Adam(net.parameters(), lr=1e-3)
    new = max(1, round(BATCH * len(y) / (first + len(y))))
    for _, place in batches(torch.zeros(len(y), 1), torch.arange(len(y)), updates, new):
        with torch.no_grad():
            old_code = codes[torch.randint(max(first, 1), (BATCH - new,))]
            images = decoder(torch.cat([codes[first:][place], old_code]))
            targets = torch.cat([F.one_hot(y[place], 10).float(), frozen(images[new:]).softmax(1)])
        update(F.cross_entropy(net(images), targets), adam)


def rival(stream: Stream, *, at_once: bool) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    total = sum(len(task.train) for task in stream.tasks)
    decoder = MLP((BITS,), [WIDTH, WIDTH], (1, 28, 28))
    net = nn.Sequential(MLP((1, 28, 28), [WIDTH, WIDTH], (128,)), nn.ReLU(), nn.Linear(128, 10))
    code_of, first = Codes(BITS, total, tasks=len(stream.tasks)), 0
    codes = torch.zeros(0, BITS)
    encoding, decoding = round(SHARES[0] * STEPS), round(SHARES[1] * STEPS)
    for t, task in enumerate(stream.tasks):
        x, y = task.train[torch.arange(len(task.train))]
        mine = code_of(torch.arange(first, first + len(x)), torch.full((len(x),), t))
        codes = torch.cat([codes, mine])
        order = find_codes(decoder, x, mine, encoding, at_once=at_once).argsort()
        learn_codes(decoder, x[order], codes, first, decoding)
        learn_classes(net, decoder, y[order], codes, first, STEPS - encoding - decoding)
        first += len(x)
    return lambda x: net(x.float() / 127.5 - 1)


def accuracy(answer: Callable[[Tensor], Tensor], stream: Stream) -> float:
    right = 0
    with torch.no_grad():
        for task in stream.tasks:
            x, y = task.test[torch.arange(len(task.test))]
            right += int((answer(x).argmax(1) == y).sum())
    return right / sum(len(task.test) for task in stream.tasks)


def run(repeats: int = 1) -> Iterator[dict[str, Any]]:
    stream = class_incremental(data_sets.load("mnist"), 5)
    yield compared(stream, repeats, "codes taken as algorithm 2 is written", at_once=False)
    yield compared(stream, repeats, "distances of a batch at once", at_once=True)
    fewer = STEPS // 3
    how = f"distances of a batch at once, ours with its default codes and {fewer} updates"
    yield compared(stream, repeats, how, at_once=True, steps=fewer, assignment="semantic")


def compared(
    stream: Stream, repeats: int, how: str, *, at_once: bool, steps: int = STEPS, assignment: str = "greedy"
) -> dict[str, Any]:
    kept: dict[str, Callable[[Tensor], Tensor]] = {}

    def mine() -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept["ours"] = ours(stream, folder, steps, assignment)

    def theirs() -> None:
        kept["rival"] = rival(stream, at_once=at_once)

    fast, slow = alternate(mine, theirs, repeats)
    return comparison(
        f"binplay, five tasks of MNIST, {STEPS} updates a task, against a plain float32 loop, {how}",
        fast,
        slow,
        target=3.0,
        accuracy=round(accuracy(kept["ours"], stream), 4),
        rival_accuracy=round(accuracy(kept["rival"], stream), 4),
        versions=versions(),
    )
