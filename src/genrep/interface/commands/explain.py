"""Show what would have to change for a classifier to decide otherwise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import torch

from genrep.applications.counterfactuals import NOISE, counterfactuals, joint_of, others
from genrep.distributions.joint import GuidanceName
from genrep.distributions.samplers import SamplerName
from genrep.evaluation.classification import accuracy, check_fits
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser
from genrep.interface.pictures import counterfactual_picture
from genrep.interface.samples import class_of
from genrep.training.settings import pick_device


def explain(argv: list[str]) -> None:
    """Counterfactuals of a joint model: noise examples a little, denoise them towards another class, show the change.

    The picture has four rows: original, noised, counterfactual, and the difference (red: brighter now, blue: darker).
    """
    parser = Parser("explain RUN", inspect.getdoc(explain) or "")
    parser.option(parser, "data", str | None, help="By default the data of the run.")
    parser.option(parser, "split", Literal["train", "validation", "test"], "test", help="Which part of the data.")
    parser.option(parser, "n", int, 10, help="How many examples, from the first.")
    parser.option(parser, "condition", str | None, help="The class to lead to; by default the next class of each one.")
    parser.option(parser, "noise", float, NOISE, help="Share of the chain that is noised and walked back.")
    parser.option(parser, "guidance", GuidanceName, "features", help="How the classifier leads.")
    parser.option(parser, "scale", float | None, help="Size of its steps; by default 150 for features, 1 else.")
    parser.option(parser, "sampler", SamplerName, "ancestral", help="How the way back is walked.")
    parser.option(parser, "out", str | None, help="A .png; by default counterfactuals.png in the run folder.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "explain", parser)
    found = parser.read(rest)
    out = Path(found.out) if found.out is not None else Path(run) / "counterfactuals.png"
    if out.suffix != ".png" or found.n < 1:
        raise ValueError(f"Expected --out to end in .png and --n of at least 1, got {out} and {found.n}.")
    model, about = runs.load_with(run)
    joint_of(model)
    model.to(pick_device(found.device))
    splits = runs.data_of(Path(run), found.data)
    check_fits(model, splits)
    x, y = getattr(splits, found.split)[torch.arange(found.n)]
    if found.condition is not None:
        target = torch.full((len(x),), class_of(found.condition, model.data, about.get("class_names", ())))
    elif y is not None:
        target = others(y.cpu().clamp_min(0), model.data.classes)
    else:
        raise ValueError("These data have no labels: say which class to lead to, with --condition.")
    how = arguments.chosen(found, ("noise", "guidance", "scale", "sampler", "seed"))
    changed = counterfactuals(model, x.cpu(), target, **how)
    counterfactual_picture(changed, model.data, out, names=about.get("class_names", ()))
    show.metrics({"led to the class": accuracy(changed.flipped).asdict()})
    print(f"written: {out}")
