"""Tables (.csv) of the user: a header, numeric columns, and columns that serve as label or condition."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from genrep.data.arrays import from_parts
from genrep.data.splits import Part, Splits
from genrep.naming import choose

_DELIMITERS = (",", ";", "\t")
_LONGEST = 2**23  # characters in a line
_LINES_SHOWN = 40  # characters of a cell that a message quotes


class Table(NamedTuple):
    """Cells by column, as text; `lines` are the line numbers of the rows in the file."""

    columns: dict[str, list[str]]
    lines: list[int]


def read_table(
    path: Path, *, label: str | None, condition: Sequence[str], levels: int | None, seed: int, memory_limit: int
) -> Splits:
    """Splits from a CSV file with a header; columns named by `label` or `condition` leave x and become y."""
    if (size := path.stat().st_size) > memory_limit / 8:  # a cell is about eight times as large as Python text
        raise ValueError(
            f"{path} has {size / 2**30:.1f} GiB of text, too much for memory_limit={memory_limit / 2**30:.1f} GiB: "
            "raise memory_limit=, or save the table as .npy."
        )
    notes: list[str] = []
    table = read_cells(path, notes)
    for name in (*condition, *([label] if label else [])):
        choose(name, table.columns, f"column of {path}")
    features = [name for name in table.columns if name != label and name not in condition]
    if not features:
        raise ValueError(f"{path} has no columns left besides label and condition.")
    x = np.stack([numbers(table, name, path) for name in features], axis=1)
    about = {"source": str(path), "columns": features, "inferred": notes}
    y = None
    if label:
        y, about["class_names"] = classes(table, label, path)
        notes.append(f"label {label}: {len(about['class_names'])} classes")
    if condition:
        y = np.stack([numbers(table, name, path) for name in condition], axis=1)
        about["condition"] = list(condition)
    return from_parts(path.stem, {"train": Part(x, y)}, levels=levels, seed=seed, about=about, columns=features)


def read_cells(path: Path, notes: list[str]) -> Table:
    """The cells of a CSV file; ValueError for no header, doubled names, ragged rows or text that is not UTF-8."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = _lines(file)
            first = next(lines, "")
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if len(rows) < 2:
        raise ValueError(f"Expected a header and rows in {path}, got {len(rows)} lines.")
    header = [name.strip() for name in rows[0][1]]
    if all(_is_number(name) for name in header):
        raise ValueError(
            f"The first line of {path} holds numbers only: expected a header with the names of the columns."
        )
    if "" in header or len(set(header)) < len(header):
        raise ValueError(f"Expected different names for all columns of {path}, got {header}.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: expected {len(header)} cells, got {len(row)}.")
    notes.append(f"{len(rows) - 1} rows, columns separated by {delimiter!r}")
    by_column = zip(*(row for _, row in rows[1:]), strict=True)
    return Table(dict(zip(header, (list(c) for c in by_column), strict=True)), [line for line, _ in rows[1:]])


def _lines(file: TextIO) -> Iterator[str]:
    """Line by line, without holding one that never ends."""
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST and not line.endswith("\n"):
            raise csv.Error(f"a line is longer than {_LONGEST} characters")
        yield line


def numbers(table: Table, name: str, path: Path) -> np.ndarray:
    """One column as finite float32 (N,); ValueError names the line and column of what is not a number."""
    cells = table.columns[name]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        row = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        what = f"'{cells[row][:_LINES_SHOWN]}'" if cells[row].strip() else "an empty cell"
        raise ValueError(
            f"{path}, line {table.lines[row]}, column {name}: expected a number, got {what}. "
            "Fill it in, leave the row or column out, or name the column as label=."
        ) from None
    bad = np.flatnonzero(~np.isfinite(values) | (np.abs(values) > np.finfo(np.float32).max))
    if len(bad):
        cell = cells[bad[0]][:_LINES_SHOWN]
        raise ValueError(
            f"{path}, line {table.lines[bad[0]]}, column {name}: expected a finite number, got {cell}. "
            "Fill it in or leave the row out."
        )
    return values.astype(np.float32)


def classes(table: Table, name: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """One column as labels (N,) and the sorted names of the classes, in numeric order if all are integers."""
    cells = [cell.strip() for cell in table.columns[name]]
    if "" in cells:
        raise ValueError(
            f"{path}, line {table.lines[cells.index('')]}, column {name}: expected a label, got an empty cell."
        )
    distinct = set(cells)
    whole = all(_is_whole(cell) for cell in distinct)
    if not whole and all(_is_number(cell) for cell in distinct):
        raise ValueError(f"Column {name} of {path} is real-valued, not a label: pass condition=['{name}'] instead.")
    if len(distinct) == len(cells):
        raise ValueError(f"Column {name} of {path} has a different value in every row: it is no label.")
    names = sorted(distinct, key=int) if whole else sorted(distinct)
    number = {cell: i for i, cell in enumerate(names)}
    return np.array([number[cell] for cell in cells]), names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return len(cell) < _LINES_SHOWN and cell.removeprefix("-").isdecimal()
