"""List the data sets, or show one of them."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

from genrep.data import as_text, contact_sheet, describe
from genrep.data import load as load_data
from genrep.data import names as data_names
from genrep.data.arrays import Layout
from genrep.interface import show
from genrep.interface.arguments import Parser


def data(argv: list[str]) -> None:
    """List the data sets; with a NAME or path: shape, range, levels, classes, splits, and a contact sheet or text."""
    parser = Parser("data [NAME]", inspect.getdoc(data) or "")
    parser.option(parser, "out", str | None, help="Where the contact sheet goes: a .png (default: NAME.png here).")
    parser.option(parser, "label", str | None, help="Column that holds the labels, where the data leave a choice.")
    parser.option(parser, "condition", tuple[str, ...], (), help="Columns that hold the condition: A,B.")
    parser.option(parser, "layout", Layout | None, help="Of arrays with four dimensions, where it is not clear.")
    parser.option(parser, "seed", int, 0, help="Of the choice of examples on the contact sheet.")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    found = parser.read(argv)
    if name is None:
        print("\n".join(data_names()))
        return
    if found.out is not None and not found.out.endswith(".png"):
        raise ValueError(f"Expected --out to end in .png, got {found.out}.")
    splits = load_data(name, label=found.label, condition=found.condition or (), layout=found.layout)
    if characters := splits.about.get("characters"):
        show.data(describe(splits), show.console())
        print("\n---\n".join(as_text(splits.train[torch.arange(4)].x, characters)))
        return
    out = Path(found.out or f"{splits.name}.png")
    show.data(describe(splits), show.console())
    contact_sheet(splits.train, out, seed=found.seed, columns=splits.about.get("columns", ()))
    print(f"contact sheet: {out}")
