"""The log of a run: one JSON line per window of updates, and a progress bar."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from genrep import storage
from genrep.extras import extra
from genrep.training import ranks

Record = dict[str, Any]


class Window:
    """The terms of the updates since the last line of the log; they stay on the device until they are read."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}
        self.steps: dict[str, list[int]] = {}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            self.values.setdefault(name, []).append(value)
            self.steps.setdefault(name, []).append(step)

    def check(self) -> None:
        """FloatingPointError with the term and the update, if any number is not finite."""
        bad: list[tuple[int, bool, str, float]] = []
        for name, values in self.values.items():
            column = torch.stack(values).tolist()
            bad += [
                (s, "gradient" in name, name, v)
                for s, v in zip(self.steps[name], column, strict=True)
                if not math.isfinite(v)
            ]
        if bad:
            step, _, name, value = min(bad)  # of one update the terms come before the gradient that they caused
            raise FloatingPointError(
                f"Update {step}: {name} became {value}. The last checkpoint before it is kept. Try a lower lr, or clip."
            )

    def means(self) -> dict[str, float]:
        return {name: torch.stack(values).mean().item() for name, values in self.values.items()}

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint between two lines of the log."""
        return {f"window/{name}": torch.stack(values) for name, values in self.values.items()}

    def load(self, tensors: dict[str, Tensor], steps: dict[str, list[int]]) -> None:
        self.values = {name: list(t.unbind()) for name, t in tensors.items()}
        self.steps = {name: list(steps[name]) for name in tensors}

    def clear(self) -> None:
        self.values, self.steps = {}, {}


class Log:
    """Lines of `log.jsonl` when there is a folder, written by rank 0; always a list in memory."""

    def __init__(self, folder: Path | None, *, upto: int = -1, tensorboard: bool = False) -> None:
        """`upto`: keep what an earlier part of this run wrote up to this step, but for its unfinished last window.

        `tensorboard`: write each number as a scalar of TensorBoard, too, into the folder `tensorboard` of the run.
        """
        self.path = folder / "log.jsonl" if folder is not None and ranks.first() else None
        self.records: list[Record] = []
        if folder is not None and upto >= 0:
            self.records = [r for r in read_log(folder) if r["step"] <= upto and "partial" not in r]
        if self.path is not None:  # atomically: a process killed here must not lose the lines before
            storage.write_text(self.path, "".join(json.dumps(r) + "\n" for r in self.records))
        self.board = _board(self.path.parent / "tensorboard") if tensorboard and self.path is not None else None
        for record in self.records:
            self._show(record)

    def append(self, record: Record) -> None:
        self.records.append(record)
        self._show(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf8") as file:
                file.write(json.dumps(record) + "\n")

    def _show(self, record: Record) -> None:
        if self.board is not None:
            for name, value in scalars(record).items():
                self.board.add_scalar(name, value, record["step"])
            self.board.flush()


def _board(folder: Path) -> Any:
    """A writer for TensorBoard, which begins anew: what an earlier part of the run wrote is written again."""
    extra("tensorboard", "tensorboard", "Logs for TensorBoard")
    from torch.utils.tensorboard import SummaryWriter  # only here: it imports all of TensorBoard

    if folder.is_dir():
        shutil.rmtree(folder)
    return SummaryWriter(str(folder))


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a line of the log, by path.

    >>> scalars({"step": 50, "terms": {"nll": 2.0}, "lr": {"model": 0.001}})
    {'terms/nll': 2.0, 'lr/model': 0.001}
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found |= {f"{key}/{name}": v for name, v in value.items()}
        elif key not in ("step", "partial"):
            found[key] = value
    return found


def read_log(folder: Path) -> list[Record]:
    """What `log.jsonl` of a run holds; nothing if there is none."""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf8").splitlines() if path.exists() else []
    return [record for line in lines if (record := _parsed(line)) is not None]


def _parsed(line: str) -> Record | None:
    """None for a last line that a killed process left half-written."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


class Bar:
    """A progress bar on standard error; nothing where that is not a terminal or it is not wanted."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        console = Console(stderr=True)
        shown = shown and ranks.first() and console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"), console=console, disable=not shown,
        )  # fmt: skip
        self.task = self.progress.add_task(title, total=total, completed=done, terms="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def advance(self, done: int, record: Record | None = None) -> None:
        if record is None:
            self.progress.update(self.task, completed=done)
        else:
            terms = "  ".join(f"{k} {v:.4g}" for k, v in record["terms"].items() if "gradient" not in k)
            self.progress.update(self.task, completed=done, terms=f"{terms}  {record['images_per_second']:.0f}/s")
