"""Find holes in the latent space: prior mass where no data are encoded."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import storage
from genrep.evaluation.holes import find_holes
from genrep.evaluation.report import as_json
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser
from genrep.interface.latent import holes_figure
from genrep.training.settings import pick_device


def holes(argv: list[str]) -> None:
    """Compare the codes of test data with the prior of the model of a run; writes holes.json and holes.png into it.

    The hole mass is the prior's mass, less that of the codes, where a classifier puts their density ratio below the
    threshold: 0 where codes follow the prior, m where a region of prior mass m holds no codes.
    """
    parser = Parser("holes RUN", inspect.getdoc(holes) or "")
    parser.option(parser, "n", int, 5000, help="Test examples that are encoded, at most, and draws of the prior.")
    parser.option(parser, "threshold", float, 0.1, help="Density ratio of codes to prior below which there is a hole.")
    parser.option(parser, "out", str | None, help="Where the figure goes: a .png (default: holes.png in the run).")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "holes", parser)
    given = parser.read(rest)
    out = Path(given.out or Path(run) / "holes.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"Expected --out to end in .png, got {out}.")
    model = runs.load(run).to(pick_device(given.device))
    splits = runs.data_of(Path(run), given.data)
    found, draws = find_holes(model, splits, n=given.n, threshold=given.threshold, seed=given.seed)
    measured = {"hole_mass": found.mass, "prior_below": found.region, "jensen_shannon": found.divergence}
    written = as_json(measured)
    show.metrics(written)
    storage.write_json(Path(run) / "holes.json", written)
    print(f"written: {Path(run) / 'holes.json'}")
    print(f"figure:  {holes_figure(model, found, draws, out)}")
