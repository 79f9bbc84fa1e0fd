"""Representations of a continual learner at work: probes after each task, and whether what they read stays in place.

`data`, `stream` and `settings` as in kind `continual`; `model` (a name, or {model: vae, latent: 8}); `strategies`:
names, or {label, strategy, model, options of the strategy}. `labels`: examples of each class that a probe is trained
on, one column each. z of multiband is that of an encoder learnt from its draws alone (`genrep.continual.readout`);
another strategy's model encodes itself. `stays` is the accuracy on the test examples of task 1 ... t of the probe
trained on z after task t, when it reads z after the last task, over what it had when it was trained; mean over t < T.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrep import storage
from genrep.continual import loop
from genrep.continual.readout import readout
from genrep.continual.strategies.multiband import Multiband
from genrep.continual.strategy import Strategy, ledger
from genrep.contracts import evaluating
from genrep.data.splits import Splits
from genrep.data.streams import union
from genrep.evaluation.probe import probe
from genrep.interface import continual as runs
from genrep.interface.experiments.continual import Row, rows_of, source_of
from genrep.naming import file_name
from genrep.training.settings import Settings, pick_device

NEEDED = ("data", "stream", "model", "strategies", "labels")
KEYS = ("stream", "model", "strategies", "labels", "settings")
BUDGET = ("steps", "examples", "readout_steps", "settings")
Encode = Callable[[Tensor], Tensor]


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows = rows_of(said)
    stream, _ = runs.read(source_of(said), seed)
    settings = Settings(steps=how["steps"], seed=seed, **{**said.get("settings", {}), **how.get("settings", {})})
    labels = [int(n) for n in said["labels"]]
    found = []
    for row in rows:
        path = folder / f"{file_name(row.label)}.json"
        if not path.exists():
            make, place = runs.maker(_chosen(row), row.model.options, stream, seed), folder / file_name(row.label)
            loop.run(make, stream, settings, folder=place, progress=progress)
            reader = _Reader(stream.tasks, labels, how, seed)
            for task, file in enumerate(sorted((place / "kept").glob("*.safetensors"))):
                kept = loop.Survived(storage.load(file).tensors)
                reader.add(loop.revived(make, kept, pick_device(settings.device), str(file)), task)
            storage.write_json(path, reader.summary())
        found.append(json.loads(path.read_text(encoding="utf8")))
    columns = ["strategy", *(f"accuracy, {n} labels a class" for n in labels), "stays", "kept, MiB"]
    lines = [
        [row.label, *(f"{f['accuracy'][str(n)]:.3f} ± {f['error'][str(n)]:.3f}" for n in labels), f"{f['stays']:.2f}",
         f"{f['kept'] / 2**20:.2f}"]
        for row, f in zip(rows, found, strict=True)
    ]  # fmt: skip
    return {"protocol": _protocol(stream.about, how), "columns": columns, "rows": lines, "notes": [], "pictures": {}}


def _chosen(row: Row) -> runs.Chosen:
    return runs.Chosen(row.model.model, row.strategy, row.model.options, row.options, "nothing")


def _protocol(about: Mapping[str, Any], how: Mapping[str, Any]) -> str:
    return (
        f"{about['rule']}, {how['steps']} updates a task; linear probes on z after the last task, trained on labelled "
        f"examples of all tasks, read on at most {how['examples']} official test examples; ± one standard error."
    )


class _Reader:
    """Encoders after each task, and what probes on them read."""

    def __init__(self, tasks: Sequence[Splits], labels: Sequence[int], how: Mapping[str, Any], seed: int) -> None:
        self.tasks, self.labels, self.how, self.seed = tasks, labels, how, seed
        self.spaces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.last: Encode = lambda x: x
        self.kept = 0

    def add(self, strategy: Strategy, task: int) -> None:
        self.last, self.kept = self._encoder(strategy, task + 1), sum(ledger(strategy).values())
        train, test = self._examples(task + 1)
        self.spaces = [*self.spaces, (self.last(train[0]), train[1], self.last(test[0]), test[1])]

    def _encoder(self, strategy: Strategy, tasks: int) -> Encode:
        model = strategy.model
        if isinstance(strategy, Multiband):
            model = readout(strategy, tasks, steps=self.how.get("readout_steps", 500), seed=self.seed)

        def encode(x: Tensor) -> Tensor:
            with torch.no_grad(), evaluating(model):
                return torch.cat([model.encode(part).flatten(1).cpu() for part in x.split(1024)])

        return encode

    def _examples(self, tasks: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Labelled training examples of the tasks learnt, the largest number asked for of each class; test examples."""
        seen = union(self.tasks[:tasks], "seen")
        train = seen.train[_balanced(seen.train[torch.arange(len(seen.train))].y, max(self.labels), self.seed)]
        n = len(seen.test)
        test = seen.test[torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[: self.how["examples"]]]
        assert train.y is not None
        assert test.y is not None
        return (train.x, train.y), (test.x, test.y)

    def summary(self) -> dict[str, Any]:
        z, y, w, t = self.spaces[-1]
        accuracy = {n: probe(z[i], y[i], w, t) for n in self.labels for i in [_balanced(y, n, self.seed)]}
        return {
            "accuracy": {n: e.value for n, e in accuracy.items()},
            "error": {n: e.standard_error for n, e in accuracy.items()},
            "stays": self._stays(),
            "kept": self.kept,
        }

    def _stays(self) -> float:
        shares = []
        for task, (z, y, w, t) in enumerate(self.spaces[:-1]):
            test = self._examples(task + 1)[1]
            shares.append(probe(z, y, self.last(test[0]), t).value / probe(z, y, w, t).value)
        return sum(shares) / max(1, len(shares))


def _balanced(y: Tensor | None, n: int, seed: int) -> Tensor:
    """Indices of n examples of each class, or of all there are of it."""
    assert y is not None
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[y[order] == c][:n] for c in y.unique()])
