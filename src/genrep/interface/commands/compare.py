"""Train several models alike, measure them alike, and report."""

from __future__ import annotations

import inspect
from typing import Literal

import genrep
from genrep import models as registry
from genrep.interface import arguments, config
from genrep.interface.arguments import Parser
from genrep.naming import choose


def compare(argv: list[str]) -> None:
    """Train several models for the same seconds or steps, measure them alike, and write report.html and report.json.

    A second call with the same folder adds models to the comparison.
    """
    parser = Parser("compare", inspect.getdoc(compare) or "")
    parser.option(parser, "data", str | None, help=arguments.DATA)
    parser.option(parser, "models", tuple[str, ...], (), help="Names of models: vae,real_nvp.")
    parser.option(parser, "seconds", float | None, help="Of training for each model, turned once into steps.")
    parser.option(parser, "steps", int | None, help="Updates of each model.")
    parser.option(parser, "out", str | None, help="Folder of the report.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    parser.option(parser, "precision", Literal["auto", "float32", "bfloat16"], "auto", help="Of training.")
    parser.option(parser, "config", str | None, help="YAML with any of these options; the command line wins.")
    file = arguments.value_of("config", argv)
    found = parser.read(argv, {} if file is None else config.read(file), source=str(file))
    for needed in ("data", "models", "out"):
        if not getattr(found, needed):
            raise ValueError(
                f"--{needed} is missing: genrep compare --data DATA --models A,B --seconds S --out FOLDER."
            )
    for name in found.models:
        choose(name, registry.names(), "model")
    if (found.seconds is None) == (found.steps is None):
        raise ValueError("Give --seconds or --steps of training for each model, one of them.")
    how = {"device": found.device, "precision": found.precision}
    genrep.compare(
        found.models, found.data, seconds=found.seconds, steps=found.steps, out=found.out, seed=found.seed, **how
    )
