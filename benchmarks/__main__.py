"""`python -m benchmarks [--record] NAME...`: a JSON line for each comparison, and at the end what missed its target."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.interface.results import misses, write_page

ROOT = Path(__file__).parents[1]
HIDDEN = {"__init__", "__main__", "common"}


def main() -> None:
    names = sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - HIDDEN)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side-by-side timings.")
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=[*names, "all"], help=f"all, or of {', '.join(names)}"
    )
    parser.add_argument("--record", action="store_true", help="write results/NAME.jsonl and docs/results.md")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in names if "all" in asked.names else asked.names:
        found = list(printed(name))
        if asked.record:
            storage.write_text(ROOT / "results" / f"{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in found))
            write_page(ROOT)
        rows += found
    print(verdict(rows), file=sys.stderr)


def printed(name: str) -> Iterator[dict[str, Any]]:
    try:
        for row in importlib.import_module(f"benchmarks.{name}").run():
            print(json.dumps(row), flush=True)
            yield row
    except ModuleNotFoundError as error:
        raise SystemExit(f"{name} needs {error.name}: `make bench` installs the rivals.") from error
    except ValueError as error:
        raise SystemExit(f"{name}: {error}") from error


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How many comparisons reach their targets, and by how much the others fall short."""
    count, missed = sum(row["target"] is not None for row in rows), [row for row in rows if misses(row)]
    lines = [f"{count - len(missed)} of {count} comparisons are at or above their targets."]
    return "\n".join([*lines, *(f"{row['name']}: {row['ratio']:g} of {row['target']:g}" for row in missed)])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Interrupted; what had ended is recorded if you asked for it.", file=sys.stderr)
        sys.exit(130)
