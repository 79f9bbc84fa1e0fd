"""Run an experiment of this project, and write what it measured."""

from __future__ import annotations

import inspect
from pathlib import Path

import genrep
from genrep.interface import experiments
from genrep.interface.arguments import Parser, repeatable


def reproduce(argv: list[str]) -> None:
    """Run an experiment of `experiments/` at a budget; writes results/ and docs/results.md.

    A run that was cut off goes on when it is called again. Without NAME: list the experiments.
    """
    parser = Parser("reproduce [NAME]", inspect.getdoc(reproduce) or "")
    parser.option(parser, "budget", str, "small", help="One of the experiment's budgets.")
    parser.option(parser, "root", str, ".", help="The folder that holds experiments/, results/ and docs/.")
    parser.option(parser, "out", str | None, help="Where the runs go; by default runs/ in the root.")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    found = parser.read(argv)
    if name is None:
        folder = Path(found.root) / "experiments"
        for each in experiments.names(folder):
            said = experiments.read(each, folder)
            print(f"{each:<20} {said['title']} ({', '.join(said['budgets'])})")
        return
    with repeatable():
        written = genrep.reproduce(name, budget=found.budget, root=found.root, out=found.out)
    for path in written:
        print(f"written: {path}")
