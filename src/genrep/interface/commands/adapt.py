"""Continue a joint model on other data, without their labels."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import data as data_sets
from genrep.interface import arguments, show
from genrep.interface.adapt import LR
from genrep.interface.adapt import adapt as adapted
from genrep.interface.arguments import Parser


def adapt(argv: list[str]) -> None:
    """Continue a joint model on target data with the diffusion's loss alone; labels of the target are never read.

    The new folder is a run like any other. Where the target's test split has labels, the accuracy before and after is
    told.
    """
    parser = Parser("adapt RUN", inspect.getdoc(adapt) or "")
    parser.option(parser, "data", str | None, help=arguments.DATA)
    parser.option(parser, "shape", tuple[int, ...], (), help="Bring images to C,H,W; grey and colour for each other.")
    parser.option(parser, "out", str | None, help="A new folder for the run.")
    parser.option(parser, "steps", int, 1000, help="Updates.")
    parser.option(parser, "lr", float, LR, help="Learning rate; a tenth of what joint_diffusion is trained with.")
    parser.option(parser, "batch", int | None, help="Examples in one batch; by default what suits the model.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "adapt", parser)
    found = parser.read(rest)
    for needed in ("data", "out"):
        if getattr(found, needed) is None:
            raise ValueError(f"--{needed} is missing: genrep adapt RUN --data TARGET --out FOLDER [--steps N].")
    splits = data_sets.load(found.data, shape=found.shape or ())
    how = arguments.chosen(found, ("steps", "lr", "batch", "seed", "device"), keep_none=False)
    done = adapted(run, splits, out=found.out, **how)
    show.trained(f"{run} on {splits.name}", done.trained, Path(found.out))
    if done.before is not None and done.after is not None:
        show.metrics({"accuracy before": done.before.asdict(), "accuracy after": done.after.asdict()})
