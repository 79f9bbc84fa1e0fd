"""Seconds of new processes: `import genrep`, what `genrep.fit` needs, and `genrep --help`, against `import torch`.

The ratio is the time of `import torch` over ours; the targets are 1 / 1.3 and 1 / 1.5.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common import alternate, comparison, versions


def process(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def run() -> Iterator[dict[str, Any]]:
    torch = process("-c", "import torch")
    for name, arguments, most in (
        ("import genrep", ("-c", "import genrep"), 1.3),
        ("import genrep, and all that genrep.fit needs", ("-c", "import genrep; genrep.fit"), 1.3),
        ("genrep --help", ("-m", "genrep", "--help"), 1.5),
    ):
        ours, rival = alternate(process(*arguments), torch, repeats=7)
        yield comparison(f"{name}, against import torch", ours, rival, target=round(1 / most, 2), versions=versions())
