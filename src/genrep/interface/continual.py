"""A continual run: a model, a strategy and a stream in one folder, with results after every task."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import yaml
from torch import Tensor

from genrep import data as data_sets
from genrep import models, storage
from genrep.continual import loop, pictures, scores, strategies
from genrep.continual.strategy import Setting, Strategy
from genrep.contracts import Model, seeded
from genrep.data import streams
from genrep.data.splits import Splits
from genrep.data.streams import Stream
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.extractors import extractor
from genrep.naming import choose
from genrep.training.settings import SUGGESTED, Settings

_SHOWN = 300  # points of a task in a picture of the latent space
StreamName = Literal["class", "dirichlet", "dirichlet_all", "condition", "sequence", "folders"]
Told = Literal["auto", "task", "label", "nothing"]


class Source(NamedTuple):
    """Where tasks come from.

    Args:
        data: A set, several of them, or a folder with a folder per portion.
        stream: class (classes one after the other, of several sets those of the first set first), dirichlet (as
            published: equal sizes, part of the data unused), dirichlet_all (all data), condition (bands of a value),
            sequence (sets one after the other), folders.
        tasks: How many; of a sequence or of folders as many as there are.
        alpha: Of a Dirichlet stream: the smaller, the fewer tasks hold a class.
        order: Of classes, for stream class.
        column: Of the condition, for stream condition: which of its columns, from 0.
        label: Column that holds the labels, where the data leave a choice.
        condition: Columns that hold the condition.
        shape: Bring images to C,H,W.
        fraction: Of the training examples of every task but the first that are there to learn from.
        held_out: Share of each task's training examples that is held out to be tested on, in place of the official
            test examples; published: 0.3.
    """

    data: tuple[str, ...] = ()
    stream: StreamName = "class"
    tasks: int = 5
    alpha: float = 1.0
    order: tuple[int, ...] = ()
    column: int = 0
    label: str | None = None
    condition: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    fraction: float = 1.0
    held_out: float = 0.0


def read(source: Source, seed: int = 0) -> tuple[Stream, Splits]:
    """The stream, and the data it is cut from, in whose features distances are measured."""
    stream, whole = _read(source, seed)
    if source.held_out:
        stream = streams.held_out(stream, source.held_out, seed=seed)
    if source.fraction != 1:
        stream = streams.reduced(stream, source.fraction, seed=seed)
    return stream, whole


def _read(source: Source, seed: int) -> tuple[Stream, Splits]:
    choose(source.stream, get_args(StreamName), "stream")
    how: dict[str, Any] = {"label": source.label, "condition": source.condition, "shape": source.shape}
    names: Sequence[str] = source.data
    if source.stream == "folders":
        names = _portions(source.data)
    sets = [data_sets.load(name, **how) for name in names]
    if len(sets) == 1 and source.stream not in ("sequence", "folders"):
        return _cut(source, sets[0], seed), sets[0]
    stream = streams.sequence(*sets)
    whole = streams.union(stream.tasks, stream.name)
    return (stream if source.stream in ("sequence", "folders") else _cut(source, whole, seed)), whole


def _cut(source: Source, splits: Splits, seed: int) -> Stream:
    if source.stream == "class":
        return streams.class_incremental(splits, source.tasks, order=source.order)
    if source.stream == "condition":
        return streams.by_condition(splits, source.tasks, column=source.column)
    published = source.stream == "dirichlet"
    return streams.dirichlet(splits, source.tasks, alpha=source.alpha, seed=seed, published=published)


def _portions(data: Sequence[str]) -> list[str]:
    if len(data) != 1 or not Path(data[0]).is_dir():
        raise ValueError(f"Stream folders takes one folder with a folder per portion, got {', '.join(data) or 'none'}.")
    found = sorted(str(p) for p in Path(data[0]).iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise ValueError(f"There are no folders in {data[0]}: each portion of the data is a folder of its own.")
    return found


class Chosen(NamedTuple):
    """The model and the strategy of a run, with their options."""

    model: str
    strategy: str
    options: Mapping[str, Any] = {}
    strategy_options: Mapping[str, Any] = {}
    told: Told = "auto"


class Measured(NamedTuple):
    """What is measured after each task."""

    metrics: tuple[str, ...] = ()
    features: str = "auto"
    samples: int = 1000
    examples: int = 1000


def run(
    chosen: Chosen,
    source: Source,
    *,
    out: str | Path,
    settings: Settings | None = None,
    measured: Measured | None = None,
    epochs: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Learn a stream and measure after every task; a second call with the same arguments goes on where it was cut.

    `epochs`: a task takes no more updates than so many passes over the largest task; 0: as many as `settings` says.

    Writes config.yaml, stream.png, results.json, samples after each task, draws in the latent space where tasks share
    one, and at the end a heat map for each metric into `out`, and returns what results.json holds.
    """
    settings, measured, folder = settings or Settings(), measured or Measured(), Path(out)
    stream, whole = read(source, settings.seed)
    stream, options = _told(chosen, stream)
    make = maker(chosen, options, stream, settings.seed)
    first = make()  # so that a misfit is known before anything is trained or written
    metrics = scores.applicable(first.model_for(0), measured.metrics)
    if epochs:
        settings = limited(settings, epochs, first.model_for(0), max(len(task.train) for task in stream.tasks))
    last = len(stream.tasks) - 1  # its phases are as many as any task's
    loop.updates(settings.steps, [phase.share for phase in first.learn(last, stream.tasks[last].train)])
    said = {"chosen": {**chosen._asdict(), "options": options}, "source": source._asdict(),
            "measured": measured._asdict(), "settings": dataclasses.asdict(settings)}  # fmt: skip
    _same(folder, said)
    how = scores.Protocol(
        extractor(measured.features, whole), metrics, measured.samples, measured.examples, settings.seed
    )
    pictures.masses(stream, folder / "stream.png")
    results = _Results(folder, stream, how, make, settings.steps)
    loop.run(make, stream, settings, folder=folder, after=results.add, progress=progress)
    for metric in metrics:
        pictures.heat_map(results.matrix(metric), metric, folder / f"{metric}.png")
    return results.found


def limited(settings: Settings, epochs: int, model: Model, examples: int) -> Settings:
    """With no more steps than so many passes over the examples take, in batches as the model suggests."""
    batch = settings.batch or model.training_options.get("batch", SUGGESTED["batch"])
    most = epochs * math.ceil(examples / (batch * settings.accumulate))
    return dataclasses.replace(settings, steps=min(settings.steps, most))


def _told(chosen: Chosen, stream: Stream) -> tuple[Stream, dict[str, Any]]:
    """The stream with what the model is told as its labels, and the options that make the model read it."""
    choose(chosen.told, get_args(Told), "value of told")
    can, options, told = "conditional" in models.options(chosen.model), dict(chosen.options), chosen.told
    if told == "auto":
        told = "task" if can else "label" if stream.spec.classes else "nothing"
    if told == "task":
        if not can:
            raise ValueError(
                f"{chosen.model} has no conditional version that could be told the task: set told=nothing."
            )
        stream = streams.by_task(stream)
    if told == "label" and not (stream.spec.classes or stream.spec.condition):
        raise ValueError(f"The data of {stream.name} have no labels that a model could be told: set told=nothing.")
    if can:
        options["conditional"] = told != "nothing"
    return stream, options


def maker(chosen: Chosen, options: Mapping[str, Any], stream: Stream, seed: int) -> loop.Make:
    """What builds the strategy around the model, the same at every call."""

    def model() -> Model:
        with seeded(seed):
            return models.build(chosen.model, stream.spec, **options)

    def make() -> Strategy:
        sizes = tuple(len(task.train) for task in stream.tasks)
        with seeded(seed):
            setting = Setting(model, stream.spec, sizes, seed)
            return strategies.build(chosen.strategy, setting, **chosen.strategy_options)

    return make


def _same(folder: Path, said: Mapping[str, Any]) -> None:
    """Write what the run is, or check that it is the run that the folder holds; what that does not name is as usual."""
    said, path = json.loads(json.dumps(said)), folder / "config.yaml"
    if path.exists():
        parts = {"source": Source()._asdict(), "measured": Measured()._asdict(),
                 "settings": dataclasses.asdict(Settings())}  # fmt: skip
        usual = json.loads(json.dumps(parts))
        held = {k: usual.get(k, {}) | v for k, v in yaml.safe_load(path.read_text(encoding="utf8")).items()}
        differing = sorted(
            k.replace("_", " ") for part in said for k in said[part] if said[part][k] != held.get(part, {}).get(k)
        )
        if differing:
            raise ValueError(f"{folder} holds a run with another {', '.join(differing[:4])}: choose another --out.")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists and holds no continual run: choose another --out.")
    storage.write_text(path, yaml.safe_dump(said, sort_keys=False))


class _Results:
    """results.json and the pictures, one row for each task."""

    def __init__(self, folder: Path, stream: Stream, how: scores.Protocol, make: loop.Make, steps: int) -> None:
        self.folder, self.stream, self.how, self.path = folder, stream, how, folder / "results.json"
        self.make = make
        self.found: dict[str, Any] = {
            "stream": stream.about,
            "tasks": [task.name for task in stream.tasks],
            "steps": steps,
            "metrics": list(how.metrics),
            "protocol": {**how.extractor.protocol, "samples": how.samples, "examples": how.examples, "seed": how.seed},
            "rows": [],
        }
        self.latents: list[Tensor] = []
        if self.path.exists():
            self.found |= json.loads(self.path.read_text(encoding="utf8"))

    def add(self, strategy: Strategy, task: int, bytes_kept: dict[str, int]) -> None:
        """Measure after a task, unless that was done before the run was cut."""
        before, self.latents = self.latents, self._latents(strategy, task)
        if len(self.found["rows"]) > task:
            return
        tasks = self.stream.tasks[: task + 1]
        each, seen = scores.score(strategy, tasks, self.how)
        row: dict[str, Any] = {m: [_number(e[m]) for e in each] for m in self.how.metrics}
        together = {m: _number(v) if isinstance(v, Estimate) else {"value": v} for m, v in seen.items()}
        self.found["rows"].append({"task": task, "scores": row, "seen": together, "kept": bytes_kept})
        self._look_ahead(strategy, task + 1)
        self.found["summary"] = {m: scores.summary(self.matrix(m), m, *self._ahead(m)) for m in self.how.metrics}
        storage.write_json(self.path, self.found)
        self._draw(strategy, tasks, before)

    def _draw(self, strategy: Strategy, tasks: Sequence[Splits], before: Sequence[Tensor]) -> None:
        """Pictures after the last of these tasks; `before`: latents before it."""
        name = f"{len(tasks) - 1:03d}.png"
        if len(self.stream.spec.shape) == 3:
            if strategy.model_for(0).generative.can_sample:
                pictures.samples(strategy, tasks, self.folder / "samples" / name, seed=self.how.seed)
            pictures.recalled(strategy, tasks, self.folder / "recalled" / name)
        if now := self.latents[: len(tasks)]:
            spaces = {"before the task": before, "after the task": now} if before else {"after the task": now}
            pictures.latent_space(spaces, self.folder / "latents" / name)

    def _look_ahead(self, strategy: Strategy, task: int) -> None:
        """The next task before it is learnt, by the model as it is and by one that learnt nothing."""
        if task == len(self.stream.tasks):
            return
        device = str(strategy.model_for(task).device)
        for name, of in (("before", strategy), ("fresh", loop.revived(self.make, None, device))):
            each = scores.before(of, task, self.stream.tasks[task], self.how)
            self.found.setdefault(name, []).append({m: _number(each[m]) for m in self.how.metrics})

    def _ahead(self, metric: str) -> tuple[list[float], list[float]]:
        """Those of the tasks that were learnt meanwhile."""
        learnt = len(self.found["rows"]) - 1
        found = ([e[metric]["value"] for e in self.found.get(k, [])[:learnt]] for k in ("before", "fresh"))
        rows = [row for row in zip(*found, strict=True) if None not in row]
        return [r for r, _ in rows], [b for _, b in rows]

    def _latents(self, strategy: Strategy, task: int) -> list[Tensor]:
        """Draws in the latent space that tasks share, where there is one, of the tasks learnt and of the next one."""
        with torch.no_grad(), seeded(self.how.seed):
            found = [strategy.latents(t, _SHOWN) for t in range(min(task + 2, len(self.stream.tasks)))]
        return [z for z in found if z is not None]

    def matrix(self, metric: str) -> list[list[float]]:
        return [[entry["value"] for entry in row["scores"][metric]] for row in self.found["rows"]]


def _number(found: Estimate) -> dict[str, Any]:
    whole = found.asdict()
    return {k: whole[k] for k in ("value", "standard_error", "n")}


def table(found: Mapping[str, Any]) -> str:
    """The results as lines of text: the mean over tasks after each task ± its standard error, what the matrices say."""
    metrics = found["metrics"]
    lines = ["after task  " + "  ".join(f"{m:>16}" for m in metrics) + "        kept"]
    for row in found["rows"]:
        means = "  ".join(f"{_mean(row['scores'][m]):>16}" for m in metrics)
        kept = sum(row["kept"].values())
        lines.append(f"{row['task'] + 1:>10}  {means}  {kept / 2**20:>6.2f} MiB")
    for name in ("forgetting", "backward_transfer", "forward_transfer"):
        told = [f"{m} {found['summary'][m][name]:.4g}" for m in metrics if name in found["summary"][m]]
        if told:
            lines.append(f"{name.replace('_', ' ')}: " + ", ".join(told))
    return "\n".join(lines)


def _mean(scores: Sequence[Mapping[str, Any]]) -> str:
    """The mean over tasks, their errors taken as independent."""
    value, errors = sum(e["value"] for e in scores) / len(scores), [e["standard_error"] for e in scores]
    if any(e is None for e in errors):
        return f"{value:.4g}"
    return f"{value:.4g} ± {math.hypot(*errors) / len(scores):.2g}"


def run_seeds(
    chosen: Chosen,
    source: Source,
    seeds: Sequence[int],
    *,
    out: str | Path,
    settings: Settings | None = None,
    measured: Measured | None = None,
    epochs: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """`run` for each seed, in folders of their own, and what the matrices say as means with intervals over seeds.

    Writes seeds.json into `out` and returns what it holds; a ValueError for no seed, or one that comes twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"Expected seeds that differ, got {list(seeds)}.")
    settings = settings or Settings()
    runs = [
        run(
            chosen,
            source,
            out=Path(out) / f"seed{seed}",
            settings=dataclasses.replace(settings, seed=seed),
            measured=measured,
            epochs=epochs,
            progress=progress,
        )
        for seed in seeds
    ]
    found = {
        "seeds": list(seeds),
        "summary": {
            m: {k: e.asdict() for k, e in scores.over_seeds([r["summary"][m] for r in runs]).items()}
            for m in runs[0]["metrics"]
        },
    }
    storage.write_json(Path(out) / "seeds.json", found)
    return found


def table_of_seeds(found: Mapping[str, Any]) -> str:
    """Means over seeds with their 95 % intervals, a line for each metric and number."""
    lines = []
    for metric, numbers in found["summary"].items():
        for name, e in numbers.items():
            low, high = e["interval"]["low"], e["interval"]["high"]
            between = "" if low is None else f" [{low:.4g}, {high:.4g}]"
            lines.append(f"{metric:>10} {name.replace('_', ' ')}: {e['value']:.4g}{between}")
    return "\n".join(lines)
