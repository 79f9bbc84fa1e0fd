"""Follow the classifier of a joint model while samples come into being."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import storage
from genrep.applications.counterfactuals import joint_of
from genrep.applications.decisions import decisions as decided
from genrep.distributions.joint import GuidanceName
from genrep.distributions.samplers import SamplerName
from genrep.interface import arguments, runs
from genrep.interface.arguments import Parser
from genrep.interface.pictures import decisions_figure
from genrep.interface.samples import parse_condition
from genrep.training.settings import pick_device


def decisions(argv: list[str]) -> None:
    """p(class | x_t) of the class that samples are led to, at every step, for several step sizes.

    Writes a figure (.png) and the mean probabilities (.json).
    """
    parser = Parser("decisions RUN", inspect.getdoc(decisions) or "")
    parser.option(parser, "condition", str | None, help="Labels, by number or name, in turn; by default all in turn.")
    parser.option(parser, "guidance", GuidanceName, "features", help="How the classifier leads.")
    parser.option(parser, "scale", tuple[float, ...], (0.0, 50.0, 150.0, 500.0), help="Step sizes to compare.")
    parser.option(parser, "sampler", SamplerName, "ddim", help="How samples are drawn.")
    parser.option(parser, "evaluations", int, 0, help="Of the network per sample; 0: what the sampler usually takes.")
    parser.option(parser, "n", int, 100, help="Samples for each step size.")
    parser.option(parser, "out", str | None, help="A .png; by default decisions.png in the run folder.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "decisions", parser)
    found = parser.read(rest)
    out = Path(found.out) if found.out is not None else Path(run) / "decisions.png"
    if out.suffix != ".png" or found.n < 1:
        raise ValueError(f"Expected --out to end in .png and --n of at least 1, got {out} and {found.n}.")
    model, about = runs.load_with(run)
    joint_of(model)
    model.to(pick_device(found.device))
    labels = found.condition or ",".join(map(str, range(model.data.classes)))
    y = parse_condition(labels, found.n, model, about)
    assert y is not None
    how = arguments.chosen(found, ("guidance", "sampler", "evaluations", "seed"))
    curves = {}
    for scale in found.scale:
        told = decided(model, found.n, y, scale=scale, **how)
        curves[scale] = (told.t, told.target(y))
    decisions_figure(curves, out)
    means = {f"{s:g}": {"t": t.tolist(), "mean": p.mean(1).tolist()} for s, (t, p) in curves.items()}
    storage.write_json(out.with_suffix(".json"), means)
    for scale, (_, p) in curves.items():
        print(f"scale {scale:g}: mean p(class) {p[0].mean():.3f} at the start, {p[-1].mean():.3f} at the end")
    print(f"written: {out}, {out.with_suffix('.json')}")
