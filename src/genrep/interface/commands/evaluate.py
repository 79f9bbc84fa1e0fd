"""Measure a trained model on held-out data."""

from __future__ import annotations

import inspect
from pathlib import Path

import genrep
from genrep.evaluation.features import ExtractorName
from genrep.evaluation.measure import METRICS, options_of
from genrep.interface import arguments, show
from genrep.interface.arguments import Parser
from genrep.naming import choose


def evaluate(argv: list[str]) -> None:
    """Measure the model of a run on the test split of its data; writes metrics.json into the run folder.

    Options of a metric are shown, and taken, where it is named: genrep evaluate RUN --metrics bits --method annealed.
    """
    named = tuple(name.strip("[] ") for name in (arguments.value_of("metrics", argv) or "").split(",") if name)
    wanted = {name: options_of(choose(name, METRICS, "metric")) for name in named}
    parser = Parser("evaluate RUN", inspect.getdoc(evaluate) or "")
    parser.option(parser, "metrics", tuple[str, ...], (), help="Which, by name: A,B; by default all that do not take "
                  f"minutes. {', '.join(METRICS)}")  # fmt: skip
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "samples", int, 2000, help="Drawn from the model, for distances.")
    parser.option(parser, "examples", int, 2000, help="Of the test split, at most.")
    parser.option(parser, "features", ExtractorName, "auto", help="In which distances are measured.")
    parser.option(parser, "reference", str | None, help="A run in whose representation criticism compares.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    own: dict[str, inspect.Parameter] = {}
    for name, options in wanted.items():
        new = {k: p for k, p in options.items() if k not in own}
        if new:
            parser.options(f"options of {name}", new, arguments.helps(METRICS[name]))
        own |= new
    run, rest = arguments.run_of(argv, "evaluate", parser)
    found = parser.read(rest)
    how = arguments.chosen(found, ("samples", "examples", "features", "reference", "seed", "device", *own))
    measured = genrep.evaluate(run, metrics=found.metrics or None, data=found.data, **how)
    show.metrics(measured)
    print(f"written: {Path(run) / 'metrics.json'}")
