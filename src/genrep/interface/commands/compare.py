"""Train several models alike, measure them alike, and report."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import genrep
from genrep.evaluation.features import ExtractorName
from genrep.evaluation.report import text
from genrep.interface import arguments, config
from genrep.interface.arguments import Parser
from genrep.interface.variants import variants

_USAGE = "genrep compare --data DATA --models A,B --seconds S --out FOLDER"
_HANDED_ON = ("seconds", "steps", "out", "seed", "samples", "examples", "evaluations", "bound_evaluations", "features",
              "device", "precision")  # fmt: skip


def compare(argv: list[str]) -> None:
    """Train several models for the same seconds or steps, measure them alike, and write report.html and report.json.

    A second call with the same folder adds models to the comparison, or goes on where the first was cut off. In a
    --config, `models` may hold variants beside names: {label: narrow, model: vae, width: 64}.
    """
    parser = _parser()
    file = arguments.value_of("config", argv)
    said = {} if file is None else config.read(file)
    on_line = arguments.given(argv)
    for one, other in (("steps", "seconds"), ("seconds", "steps")):
        if one in on_line and other not in on_line:
            said.pop(other, None)
    of_file = said.pop("models", None)  # may hold variants, which a command line cannot
    found = parser.read(argv, said, source=str(file))
    listed = found.models or of_file
    if not (found.data and listed and found.out):
        lacking = next(k for k, v in (("data", found.data), ("models", listed), ("out", found.out)) if not v)
        raise ValueError(f"--{lacking} is missing: {_USAGE}.")
    variants(listed)
    if (found.seconds is None) == (found.steps is None):
        raise ValueError("Give --seconds or --steps of training for each model, one of them.")
    how = arguments.chosen(found, _HANDED_ON)
    with arguments.repeatable():
        report = genrep.compare(listed, found.data, metrics=found.metrics or None, **how)
    print(f"{text(report)}\n\nreport: {Path(found.out) / 'report.html'}")


def _parser() -> Parser:
    parser = Parser("compare", inspect.getdoc(compare) or "")
    parser.option(parser, "data", str | None, help=arguments.DATA)
    parser.option(parser, "models", tuple[str, ...], (), help="Names of models: vae,real_nvp.")
    parser.option(
        parser,
        "seconds",
        float | None,
        help="Of training for each model, all its stages together, turned once into steps.",
    )
    parser.option(
        parser, "steps", int | None, help="Updates of each model, shared out evenly among its stages if it has several."
    )
    parser.option(parser, "out", str | None, help="Folder of the report.")
    parser.option(parser, "metrics", tuple[str, ...], (), help="Which, by name: A,B; by default all that apply.")
    parser.option(parser, "samples", int, 2000, help="Drawn from each model, for distances.")
    parser.option(parser, "examples", int, 2000, help="Of the test split, at most.")
    parser.option(parser, "evaluations", int, 20, help="Of the network per sample of a chain, at most.")
    parser.option(parser, "bound_evaluations", int, 20, help="Of the network per example, to estimate a bound that is "
                  "a sum over a chain; an unbiased estimate.")  # fmt: skip
    parser.option(parser, "features", ExtractorName, "auto", help="In which distances are measured.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    parser.option(parser, "precision", Literal["auto", "float32", "bfloat16"], "auto", help="Of training.")
    parser.option(parser, "config", str | None, help="YAML with any of these options; the command line wins.")
    return parser
