"""`python -m benchmarks NAME...`: run benchmarks and print a JSON line for each comparison."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

HIDDEN = {"__init__", "__main__", "common"}


def main() -> None:
    names = sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - HIDDEN)
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= set(names):
        raise SystemExit(f"Expected names of {names}, got {sys.argv[1:]}.")
    for name in sys.argv[1:]:
        for row in importlib.import_module(f"benchmarks.{name}").run():
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
