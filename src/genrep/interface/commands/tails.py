"""Tell which columns of a table have heavy tails."""

from __future__ import annotations

import inspect

from rich.markup import escape
from rich.table import Table

from genrep.data import load as load_data
from genrep.evaluation.features import examples
from genrep.evaluation.tails import Tail, as_option, tail_index
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
    table, option = Table("column", "tail", "index", "interval", "shape", box=None), []
    for name_of, column in zip(columns, x.T, strict=True):
        try:
            tail = tail_index(column, level=found.level)
        except ValueError as reason:  # the other columns may have tails
            table.add_row(escape(name_of), f"none: {reason}")
            option.append(0.0)
            continue
        table.add_row(*map(escape, (name_of, *_cells(tail))))
        option += as_option([tail])
    show.console().print(table)
    print(f"next:    genrep train tail_flow --data {name} --tails {','.join(f'{t:g}' for t in option)}")


def _cells(tail: Tail) -> tuple[str, ...]:
    """Heavy or light, the index of a heavy one with its interval, and the interval of the shape."""
    (low, high, _), (bottom, top, _) = tail.index.interval, tail.shape.interval
    index = (f"{tail.index.value:.2f}", f"[{low:.2f}, {high:.2f}]") if tail.heavy else ("", "")
    return ("heavy" if tail.heavy else "light", *index, f"[{bottom:.2f}, {top:.2f}]")
