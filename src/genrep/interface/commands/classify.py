"""Classify data with a trained model."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

from genrep import storage
from genrep.evaluation.classification import Classified
from genrep.evaluation.classification import classify as classified
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser
from genrep.training.settings import pick_device


def classify(argv: list[str]) -> None:
    """Classify a split of some data: accuracy with its interval, and a file with every prediction."""
    parser = Parser("classify RUN", inspect.getdoc(classify) or "")
    parser.option(parser, "data", str | None, help="By default the data of the run.")
    parser.option(parser, "shape", tuple[int, ...], (), help="Bring images to C,H,W; grey and colour for each other.")
    parser.option(parser, "split", Literal["train", "validation", "test"], "test", help="Which part of the data.")
    parser.option(parser, "examples", int, 0, help="The first so many; 0: all.")
    parser.option(parser, "out", str | None, help="A .csv; by default predictions.csv in the run folder.")
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "classify", parser)
    found = parser.read(rest)
    out = Path(found.out) if found.out is not None else Path(run) / "predictions.csv"
    if out.suffix != ".csv":
        raise ValueError(f"Expected --out to end in .csv, got {out}.")
    model, about = runs.load_with(run)
    model.to(pick_device(found.device))
    splits = runs.data_of(Path(run), found.data, shape=found.shape)
    told = classified(model, splits, found.split, examples=found.examples)
    names = about.get("class_names") or [str(i) for i in range(model.data.classes)]
    storage.write_text(out, table(told, names))
    if told.accuracy is not None:
        show.metrics({"accuracy": told.accuracy.asdict()})
    print(f"written: {out}")


def table(told: Classified, names: list[str]) -> str:
    """CSV: number of the example, its label (empty where unknown), what was predicted, and with which probability."""
    best = told.probabilities.max(1)
    lines = ["example,label,predicted,probability"]
    for i, (p, c) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        label = "" if told.y is None or told.y[i] < 0 else names[int(told.y[i])]
        lines.append(f"{i},{label},{names[c]},{p:.6f}")
    return "\n".join(lines) + "\n"
