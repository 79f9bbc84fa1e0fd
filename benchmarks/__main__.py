"""`python -m benchmarks NAME`: run one benchmark and print a JSON line for each comparison."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

HIDDEN = {"__init__", "__main__", "common"}


def main() -> None:
    names = sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - HIDDEN)
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise SystemExit(f"Expected one name of {names}, got {sys.argv[1:]}.")
    for row in importlib.import_module(f"benchmarks.{sys.argv[1]}").run():
        print(json.dumps(row), flush=True)


main()
