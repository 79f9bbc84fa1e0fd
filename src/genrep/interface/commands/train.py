"""Train a model on data."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import models as registry
from genrep.data import load as load_data
from genrep.data.arrays import Layout
from genrep.interface import arguments, config, runs, show
from genrep.interface.arguments import Parser
from genrep.naming import choose
from genrep.training.settings import Settings

_USAGE = "genrep train MODEL --data DATA --out FOLDER [--steps N | --seconds S] [OPTIONS]"


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
        raise ValueError(f"Which model? {_USAGE}. Models: {', '.join(registry.names())}.")
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
            raise ValueError(f"--{needed} is missing: {_USAGE}.")
    splits = load_data(
        found.data,
        label=found.label,
        condition=found.condition or (),
        layout=found.layout,
        shape=found.shape or (),
        labelled=found.labelled,
    )
    done = runs.train(
        name,
        splits,
        out=found.out,
        options=arguments.chosen(found, registry.options(name)),
        seconds=found.seconds,
        **arguments.chosen(found, _settings(), keep_none=False),
    )
    show.trained(f"{name} on {splits.name}", done, Path(found.out))


def train_parser(name: str | None) -> Parser:
    """The parser of `genrep train NAME`; a clash of names between options would be a fault of ours."""
    recipe = None if name is None else registry.get(name)
    about = inspect.getdoc(train) if recipe is None else arguments.summary(recipe)
    parser = Parser(f"train {name or 'MODEL'}", about or "")
    run = parser.add_argument_group("the run")
    parser.option(run, "data", str | None, help=arguments.DATA)
    parser.option(run, "label", str | None, help="Column that holds the labels, where the data leave a choice.")
    parser.option(run, "condition", tuple[str, ...], (), help="Columns that hold the condition: A,B.")
    parser.option(run, "layout", Layout | None, help="Of arrays with four dimensions, where it is not clear.")
    parser.option(run, "shape", tuple[int, ...], (), help="Bring images to C,H,W; grey and colour for each other.")
    parser.option(run, "labelled", float, 1.0, help="Share of the training examples that keep their labels.")
    parser.option(run, "out", str | None, help="A new folder for the run.")
    parser.option(
        run,
        "seconds",
        float | None,
        help="Of training, instead of steps: of all stages together, turned once into steps of each.",
    )
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
