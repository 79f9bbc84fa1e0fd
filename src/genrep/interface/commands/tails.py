"""Tell which columns of a table have heavy tails."""

from __future__ import annotations

import inspect

from rich.markup import escape
from rich.table import Table

from genrep.data import load as load_data
from genrep.evaluation.features import examples
from genrep.evaluation.tails import as_option, tail_indices
from genrep.interface import show
from genrep.interface.arguments import Parser

_ROWS = 1_000_000


def tails(argv: list[str]) -> None:
    """Tell which columns of a table have heavy tails, and how heavy; prints the option --tails of tail_flow."""
    parser = Parser("tails DATA", inspect.getdoc(tails) or "")
    parser.option(parser, "label", str | None, help="Column that holds the labels, where the data leave a choice.")
    parser.option(parser, "condition", tuple[str, ...], (), help="Columns that hold the condition: A,B.")
    parser.option(parser, "level", float, 0.95, help="Of the intervals.")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    found = parser.read(argv)
    if name is None:
        raise ValueError("Which data? genrep tails DATA, a table by name or a .csv, .npy or .npz file.")
    if not 0 < found.level < 1:
        raise ValueError(f"Expected --level in (0, 1), got {found.level}.")
    splits = load_data(name, label=found.label, condition=found.condition or ())
    if len(splits.spec.shape) != 1 or splits.spec.levels is not None:
        raise ValueError(f"Tails are those of a table of real values; {splits.name} has shape {splits.spec.shape}.")
    x, _ = examples(splits.train, _ROWS)
    columns = splits.about.get("columns") or [f"column {i}" for i in range(x.shape[1])]
    measured = tail_indices(x, level=found.level)
    table = Table("column", "tail", "index", "interval", "shape", box=None)
    for column, tail in zip(columns, measured, strict=True):
        low, high, _ = tail.index.interval
        index = (f"{tail.index.value:.2f}", f"[{low:.2f}, {high:.2f}]") if tail.heavy else ("", "")
        bottom, top, _ = tail.shape.interval
        cells = ("heavy" if tail.heavy else "light", *index, f"[{bottom:.2f}, {top:.2f}]")
        table.add_row(*map(escape, (column, *cells)))
    show.console().print(table)
    print(f"next:    genrep train tail_flow --data {name} --tails {','.join(f'{t:g}' for t in as_option(measured))}")
