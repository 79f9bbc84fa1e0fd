"""Parquet files (.parquet) of the user: tables of numbers, looked at before they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrep.data.columns import from_columns
from genrep.data.splits import Splits
from genrep.extras import extra

_WIDE = 16  # bytes of a value in memory, at most: it is read as it is, then as float32


def read_parquet(
    path: Path, *, label: str | None, condition: Sequence[str], levels: int | None, seed: int, memory_limit: int
) -> Splits:
    """Splits from one Parquet file; columns named by `label` or `condition` leave x and become y."""
    parquet = extra("pyarrow.parquet", "parquet", "Parquet files")
    arrow, size = extra("pyarrow", "parquet", "Parquet files"), 0
    try:
        names = _names(parquet.read_schema(path), arrow)
        # text stays numbered: a file of a few bytes can repeat a long word a million times
        with parquet.ParquetFile(path, read_dictionary=list(names[1])) as file:
            held = file.metadata
            size = max(held.num_rows * len(names[0]) * _WIDE, _unpacked(held))
            if size > memory_limit:
                raise MemoryError
            table = file.read()
    except MemoryError:
        raise ValueError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, more than memory_limit={memory_limit / 2**30:.1f} GiB. "
            "Raise memory_limit= if you trust the file."
        ) from None
    except Exception as error:  # Arrow raises what it likes on hostile bytes
        raise ValueError(f"{path} is damaged or not a Parquet file of plain columns: {str(error)[:200]}.") from error
    if not table.num_rows:
        raise ValueError(f"{path} holds no rows.")
    columns = {name: _values(table.column(name), arrow) for name in names[0]}
    about: dict[str, Any] = {"source": str(path), "inferred": [f"{table.num_rows} rows of {len(columns)} columns"]}
    how: dict[str, Any] = {"label": label, "condition": condition, "levels": levels, "seed": seed}
    return from_columns(path.stem, {"train": columns}, about=about, **how)


def _names(schema: Any, arrow: Any) -> tuple[list[str], list[str]]:
    """Names of all columns, and of those that hold text; a ValueError for one that holds neither numbers nor text."""
    names, texts = [field.name for field in schema], list[str]()
    if len(set(names)) < len(names):
        raise ValueError(f"two columns have one name, of {names}")
    for field in schema:
        kind = field.type.value_type if arrow.types.is_dictionary(field.type) else field.type
        if arrow.types.is_string(kind) or arrow.types.is_large_string(kind):
            texts.append(field.name)
        elif not (arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_boolean(kind)):
            raise ValueError(f"column {field.name} holds {kind}, expected numbers or text")
    return names, texts


def _values(column: Any, arrow: Any) -> list[Any]:
    """A column as Python holds it, each word of text once."""
    if not arrow.types.is_dictionary(column.type):
        return column.to_pylist()
    found: list[Any] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        found += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
    return found


def _unpacked(held: Any) -> int:
    """Bytes of all columns before compression, as the file says."""
    return sum(held.row_group(i).total_byte_size for i in range(held.num_row_groups))
