"""Analyse the steps of a trained diffusion model."""

from __future__ import annotations

import inspect
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from genrep.interface import arguments, show
from genrep.interface.analyses import ANALYSES, EVALUATIONS
from genrep.interface.analyses import analyse as run_analyses
from genrep.interface.arguments import Parser


def analyse(argv: list[str]) -> None:
    """Tables and figures of what the steps of a diffusion model do: noise, errors, bound, samplers and probes."""
    parser = Parser("analyse RUN", inspect.getdoc(analyse) or "")
    parser.option(parser, "what", tuple[str, ...], (), help=f"Which of {', '.join(ANALYSES)}: A,B; default: all.")
    parser.option(parser, "foreign", tuple[str, ...], (), help="Data sets of the same shape to compare with: A,B.")
    parser.option(parser, "out", str | None, help="A folder; by default analyses in the run.")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "examples", int, 500, help="Of the test split and of each foreign set, at most.")
    parser.option(parser, "samples", int, 1000, help="Drawn for each distance.")
    parser.option(parser, "evaluations", tuple[int, ...], EVALUATIONS, help="At which samplers are compared.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "analyse", parser)
    found = parser.read(rest)
    how = arguments.chosen(found, ("out", "foreign", "data", "examples", "samples", "evaluations", "seed", "device"))
    tables = run_analyses(run, found.what, **how)
    for name, table in tables.items():
        if "reason" in table:
            print(f"{name}: {table['reason']}")
            continue
        shown = Table(*[escape(c) for c in table["columns"]], title=name)
        for row in table["rows"]:
            shown.add_row(*[escape(str(cell)) for cell in row])
        show.console().print(shown)
        for line in table["notes"]:
            print(line)
        print(f"figure: {Path(found.out or Path(run) / 'analyses') / table['picture']}")
