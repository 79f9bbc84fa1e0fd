"""The commands of `genrep`, one function each; every one does what a documented function does."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

import genrep
from genrep import models as registry
from genrep.data import contact_sheet, describe
from genrep.data import load as load_data
from genrep.data import names as data_names
from genrep.data.arrays import Layout
from genrep.interface import arguments, config, runs, show
from genrep.interface.arguments import Namespace, Parser
from genrep.interface.samples import check_path, parse_condition, save_samples
from genrep.naming import choose
from genrep.training import ranks
from genrep.training.settings import Settings, pick_device

_DATA_HELP = "A named set (genrep data lists them), a folder of images, or a .npy, .npz or .csv file."
_SEED_HELP = "Of everything random."
_DEVICE_HELP = "auto takes an accelerator when there is one."
_STEPS_HELP = "Updates of each model."
_COMPARE = "genrep compare --data DATA --models A,B --seconds S --out FOLDER"
_TRAIN = "genrep train MODEL --data DATA --out FOLDER [--steps N | --seconds S] [OPTIONS]"


# ---- train -------------------------------------------------------------------------------------------------------


def train(argv: list[str]) -> None:
    """Train a model on data; `genrep train MODEL --help` shows the options of that model."""
    file = arguments.value_of("config", argv)
    said = {} if file is None else config.read(file)
    if argv and not argv[0].startswith("-"):
        name, argv = argv[0], argv[1:]
    elif said.get("model"):
        name = str(said["model"])
    elif "--help" in argv:
        train_parser(None).print_help()
        return
    else:
        raise ValueError(f"Which model? {_TRAIN}. Models: {', '.join(registry.names())}.")
    choose(name, registry.names(), "model")
    parser = train_parser(name)
    on_line = arguments.given(argv)
    said = {k: v for k, v in said.items() if k not in config.NOT_OPTIONS}
    for one, other in (("steps", "seconds"), ("seconds", "steps")):
        if one in on_line and other not in on_line:
            said.pop(other, None)
    found = parser.read(argv, said, source=str(file))
    for needed in ("data", "out"):
        if getattr(found, needed) is None:
            raise ValueError(f"--{needed} is missing: {_TRAIN}.")
    splits = load_data(found.data, label=found.label, condition=found.condition or (), layout=found.layout)
    done = runs.train(
        name,
        splits,
        out=found.out,
        options=_chosen(found, registry.options(name)),
        seconds=found.seconds,
        **_chosen(found, _settings(), keep_none=False),
    )
    _tell(f"{name} on {splits.name}", done, Path(found.out))


def train_parser(name: str | None) -> Parser:
    """The parser of `genrep train NAME`; a clash of names between options would be a fault of ours."""
    recipe = None if name is None else registry.get(name)
    about = inspect.getdoc(train) if recipe is None else arguments.summary(recipe)
    parser = Parser(f"train {name or 'MODEL'}", about or "")
    run = parser.add_argument_group("the run")
    parser.option(run, "data", str | None, help=_DATA_HELP)
    parser.option(run, "label", str | None, help="Column that holds the labels, where the data leave a choice.")
    parser.option(run, "condition", tuple[str, ...], (), help="Columns that hold the condition: A,B.")
    parser.option(run, "layout", Layout | None, help="Of arrays with four dimensions, where it is not clear.")
    parser.option(run, "out", str | None, help="A new folder for the run.")
    parser.option(run, "seconds", float | None, help="Of training, instead of steps; turned once into steps.")
    parser.option(run, "config", str | None, help="YAML with any of these options; the command line wins.")
    own = {} if name is None else registry.options(name)
    parser.options(f"options of {name or 'the model: genrep train NAME --help'}", own, arguments.helps(recipe))
    settings = _settings()
    settings["steps"] = settings["steps"].replace(annotation=int | None, default=None)
    helps = arguments.helps(Settings)
    helps["steps"] = helps["steps"].replace("Updates;", f"Updates ({Settings.steps});", 1)
    parser.options(
        "settings of training", settings, helps, "Without a default: what suits the model, else the value in brackets."
    )
    return parser


def _settings() -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(Settings, eval_str=True).parameters)


def _chosen(found: Namespace, parameters: Iterable[str], *, keep_none: bool = True) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in parameters}
    return {k: v for k, v in values.items() if keep_none or v is not None}


def _tell(what: str, done: runs.Trained, folder: Path, steps: str = "{} steps") -> None:
    """One line on how training went, and what to do next; of several processes one speaks."""
    if not ranks.first():
        return
    outcome, console = done.outcome, _console()
    last = next((r for r in reversed(outcome.log) if "terms" in r), None)
    speeds = sorted(r["images_per_second"] for r in outcome.log if "images_per_second" in r)
    weights = {k for objective in done.model.objectives for k in getattr(objective, "terms", {})}
    terms = {} if last is None else {k: v for k, v in last["terms"].items() if k in weights}
    parts = [f"{steps.format(outcome.steps)} in {_duration(done.seconds)}"]
    parts += [f"{speeds[len(speeds) // 2]:,.0f} examples/s"] if speeds else []
    parts += [f"last {name} {value:.4g}" for name, value in terms.items()]
    parts += ["stopped early, best weights kept"] if outcome.stopped_early else []
    console.print(f"[bold]{escape(what)}[/bold]: {', '.join(parts)}", soft_wrap=True)
    if done.picture is not None:
        print(f"samples: {done.picture}")
    print(f"next:    genrep sample {folder} --n 64 --out samples.png")
    print(f"         genrep evaluate {folder}")


def _duration(seconds: float) -> str:
    """In words.

    >>> _duration(5.04), _duration(125), _duration(7260)
    ('5.0 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _console() -> Console:
    return Console(highlight=False)


# ---- with a run --------------------------------------------------------------------------------------------------


def _run_of(argv: list[str], command: str, parser: Parser) -> tuple[str, list[str]]:
    """The positional RUN, and the other arguments."""
    if "--help" in argv and (not argv or argv[0].startswith("-")):
        parser.print_help()
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise ValueError(f"Which run? genrep {command} RUN ..., with the folder that genrep train wrote.")
    return argv[0], argv[1:]


def resume(argv: list[str]) -> None:
    """Continue a run to a total of --steps updates, bit for bit as if it had never stopped."""
    parser = Parser("resume RUN", inspect.getdoc(resume) or "")
    parser.option(parser, "steps", int | None, help="In all, those already done included.")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "device", str | None, help="By default the same as before.")
    run, rest = _run_of(argv, "resume", parser)
    found = parser.read(rest)
    if found.steps is None:
        raise ValueError(f"--steps is missing: genrep resume {run} --steps TOTAL.")
    done = runs.go_on(run, steps=found.steps, data=found.data, device=found.device)
    _tell(run, done, Path(run), "to step {}")


def sample(argv: list[str]) -> None:
    """Draw samples from the model of a run; `genrep sample RUN --help` shows the sampling options of its model."""
    run = None if not argv or argv[0].startswith("-") else argv[0]
    model, about = (None, {}) if run is None else runs.load_with(run)
    own = {} if model is None else arguments.keyword_options(type(model.generative).forward)
    parser = Parser("sample RUN", inspect.getdoc(sample) or "")
    group = parser.add_argument_group("samples")
    parser.option(group, "n", int, 64, help="How many.")
    parser.option(group, "out", str | None, help="A .png (one picture), a .npz, or a new folder for PNG files. By "
                  "default a picture in the folder samples of the run.")  # fmt: skip
    parser.option(group, "condition", str | None, help="Labels, by number or name, taken in turn: 3 or 0,1,2 (default: "
                  "all in turn). Or the numbers of a condition, in the units of the data.")  # fmt: skip
    parser.option(group, "seed", int, 0, help=_SEED_HELP)
    parser.option(group, "device", str, "auto", help=_DEVICE_HELP)
    parser.option(group, "batch", int, 256, help="How many are drawn at a time.")
    if model is not None:
        parser.options("options of its model", own, {}, _plain(type(model.generative).forward))
    run, rest = _run_of(argv, "sample", parser)
    assert model is not None
    found = parser.read(rest)
    _draw(model, about, Path(run), found, _chosen(found, own))


def _plain(documented: Any) -> str:
    return arguments.summary(documented).replace("`", "")


def _draw(model: genrep.Model, about: Mapping[str, Any], run: Path, found: Namespace, how: Mapping[str, Any]) -> None:
    if found.out is None and not run.is_dir():
        raise ValueError("--out is missing: where the samples go.")
    out = Path(found.out) if found.out is not None else run / "samples" / f"seed{found.seed}.png"
    check_path(out, model.data)
    if found.n < 1:
        raise ValueError(f"Expected --n of at least 1, got {found.n}.")
    y = parse_condition(found.condition, found.n, model, about)
    model.to(pick_device(found.device))
    with _console().status(f"drawing {found.n} samples") if sys.stderr.isatty() else contextlib.nullcontext():
        x = model.sample(found.n, condition=y, seed=found.seed, batch=found.batch, **how)
    print(save_samples(x, model.data, out, condition=y, columns=about.get("columns", ())))


def evaluate(argv: list[str]) -> None:
    """Measure the model of a run on the test split of its data; writes metrics.json into the run folder."""
    parser = Parser("evaluate RUN", inspect.getdoc(evaluate) or "")
    parser.option(parser, "metrics", tuple[str, ...], (), help="Which, by name: A,B; by default all that apply.")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "samples", int, 2000, help="Drawn from the model, for distances.")
    parser.option(parser, "examples", int, 2000, help="Of the test split, at most.")
    parser.option(parser, "seed", int, 0, help=_SEED_HELP)
    parser.option(parser, "device", str, "auto", help=_DEVICE_HELP)
    run, rest = _run_of(argv, "evaluate", parser)
    found = parser.read(rest)
    how = _chosen(found, ("samples", "examples", "seed", "device"))
    measured = genrep.evaluate(run, metrics=found.metrics or None, data=found.data, **how)
    show.metrics(measured)
    print(f"written: {Path(run) / 'metrics.json'}")


def compare(argv: list[str]) -> None:
    """Train several models for the same seconds or steps, measure them alike, and write report.html and report.json.

    A second call with the same folder adds models to the comparison.
    """
    parser = Parser("compare", inspect.getdoc(compare) or "")
    parser.option(parser, "data", str | None, help=_DATA_HELP)
    parser.option(parser, "models", tuple[str, ...], (), help="Names of models: vae,real_nvp.")
    parser.option(parser, "seconds", float | None, help="Of training for each model, turned once into steps.")
    parser.option(parser, "steps", int | None, help=_STEPS_HELP)
    parser.option(parser, "out", str | None, help="Folder of the report.")
    parser.option(parser, "seed", int, 0, help=_SEED_HELP)
    parser.option(parser, "device", str, "auto", help=_DEVICE_HELP)
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


def reproduce(argv: list[str]) -> None:
    """Run an experiment of `experiments/` at a budget; writes results/ and docs/results.md.

    A run that was cut off goes on when it is called again. Without NAME: list the experiments.
    """
    from genrep.interface.reproduce import experiments

    parser = Parser("reproduce [NAME]", inspect.getdoc(reproduce) or "")
    parser.option(parser, "budget", str, "small", help="One of the experiment's budgets.")
    parser.option(parser, "root", str, ".", help="The folder that holds experiments/, results/ and docs/.")
    parser.option(parser, "out", str | None, help="Where the runs go; by default runs/ in the root.")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    found = parser.read(argv)
    if name is None:
        print("\n".join(experiments(Path(found.root) / "experiments")))
        return
    for path in genrep.reproduce(name, budget=found.budget, root=found.root, out=found.out):
        print(f"written: {path}")


# ---- what there is -----------------------------------------------------------------------------------------------


def models(argv: list[str]) -> None:
    """List the models with family, capabilities and reference; with a NAME: its parts, objectives and options."""
    parser = Parser("models [NAME]", inspect.getdoc(models) or "")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    parser.read(argv)
    if name is None:
        show.models(_console())
    else:
        show.model(choose(name, registry.names(), "model"), _console())


def data(argv: list[str]) -> None:
    """List the data sets; with a NAME or path: shape, range, levels, classes, splits, and a contact sheet."""
    parser = Parser("data [NAME]", inspect.getdoc(data) or "")
    parser.option(parser, "out", str | None, help="Where the contact sheet goes: a .png (default: NAME.png here).")
    parser.option(parser, "label", str | None, help="Column that holds the labels, where the data leave a choice.")
    parser.option(parser, "condition", tuple[str, ...], (), help="Columns that hold the condition: A,B.")
    parser.option(parser, "layout", Layout | None, help="Of arrays with four dimensions, where it is not clear.")
    parser.option(parser, "seed", int, 0, help="Of the choice of examples on the contact sheet.")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    found = parser.read(argv)
    if name is None:
        print("\n".join(data_names()))
        return
    if found.out is not None and not found.out.endswith(".png"):
        raise ValueError(f"Expected --out to end in .png, got {found.out}.")
    splits = load_data(name, label=found.label, condition=found.condition or (), layout=found.layout)
    out = Path(found.out or f"{splits.name}.png")
    show.data(describe(splits), _console())
    contact_sheet(splits.train, out, seed=found.seed, columns=splits.about.get("columns", ()))
    print(f"contact sheet: {out}")
