"""Measure a trained model on held-out data."""

from __future__ import annotations

import inspect
from pathlib import Path

import genrep
from genrep.interface import arguments, show
from genrep.interface.arguments import Parser


def evaluate(argv: list[str]) -> None:
    """Measure the model of a run on the test split of its data; writes metrics.json into the run folder."""
    parser = Parser("evaluate RUN", inspect.getdoc(evaluate) or "")
    parser.option(parser, "metrics", tuple[str, ...], (), help="Which, by name: A,B; by default all that apply.")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "samples", int, 2000, help="Drawn from the model, for distances.")
    parser.option(parser, "examples", int, 2000, help="Of the test split, at most.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "evaluate", parser)
    found = parser.read(rest)
    how = arguments.chosen(found, ("samples", "examples", "seed", "device"))
    measured = genrep.evaluate(run, metrics=found.metrics or None, data=found.data, **how)
    show.metrics(measured)
    print(f"written: {Path(run) / 'metrics.json'}")
