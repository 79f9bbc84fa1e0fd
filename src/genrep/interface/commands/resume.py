"""Continue a run, bit for bit as if it had never stopped."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser


def resume(argv: list[str]) -> None:
    """Continue a run to a total of --steps updates, bit for bit as if it had never stopped."""
    parser = Parser("resume RUN", inspect.getdoc(resume) or "")
    parser.option(
        parser,
        "steps",
        int | None,
        help="In all, those already done included; of each stage from the one at hand, if the model has several.",
    )
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "device", str | None, help="By default the same as before.")
    run, rest = arguments.run_of(argv, "resume", parser)
    found = parser.read(rest)
    if found.steps is None:
        raise ValueError(f"--steps is missing: genrep resume {run} --steps TOTAL.")
    done = runs.go_on(run, steps=found.steps, data=found.data, device=found.device)
    show.trained(run, done, Path(run), "to step {}")
