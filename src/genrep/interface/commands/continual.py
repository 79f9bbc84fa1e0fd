"""Learn data that arrive in tasks, one after the other, and measure what is kept."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from genrep import models
from genrep.continual import strategies
from genrep.interface import arguments, config
from genrep.interface import continual as runs
from genrep.interface.arguments import Parser
from genrep.naming import choose
from genrep.training.settings import Settings

_USAGE = "genrep continual --model MODEL --strategy STRATEGY --data DATA --stream STREAM --out FOLDER [OPTIONS]"
_SETTINGS = {k: p for k, p in inspect.signature(Settings, eval_str=True).parameters.items()
             if k not in ("steps", "sharded", "validate_every", "patience", "keep_best", "snapshot_every")}  # fmt: skip

_EPOCHS = 100  # of the largest task, where steps are not said: what a small one needs, and not many times that


def continual(argv: list[str]) -> None:
    """Learn a stream of tasks with a model and a strategy against forgetting, and measure after every task.

    A second call with the same options goes on where the first was cut. Options of the strategy carry its name:
    --buffer_size for the size of buffer.
    """
    file = arguments.value_of("config", argv)
    said = {} if file is None else config.read(file)
    model, strategy = (arguments.value_of(k, argv) or said.get(k) for k in ("model", "strategy"))
    if model is not None:
        choose(model, models.names(), "model")
    if strategy is not None:
        choose(strategy, strategies.names(), "strategy")
    parser = _parser(model, strategy)
    found = parser.read(argv, said, source=str(file))
    for needed in ("model", "strategy", "data", "out"):
        if not getattr(found, needed):
            raise ValueError(f"--{needed} is missing: {_USAGE}.")
    chosen = runs.Chosen(
        found.model,
        found.strategy,
        arguments.chosen(found, models.options(found.model)),
        {k: getattr(found, f"{strategy}_{k}") for k in strategies.options(found.strategy)},
        found.told,
    )
    source = runs.Source(**arguments.chosen(found, runs.Source._fields))
    how: dict[str, Any] = {
        "out": found.out,
        "settings": Settings(**arguments.chosen(found, ("steps", *_SETTINGS), keep_none=False)),
        "epochs": 0 if found.steps else _EPOCHS,
        "measured": runs.Measured(**arguments.chosen(found, runs.Measured._fields)),
    }
    what = f"{found.model}, {found.strategy}, {{}}: {found.out}"
    with arguments.repeatable():
        if found.seeds:
            results = runs.run_seeds(chosen, source, found.seeds, **how)
            print(what.format(f"{len(found.seeds)} seeds") + "/seeds.json", runs.table_of_seeds(results), sep="\n")
        else:
            results = runs.run(chosen, source, **how)
            each = f"{len(results['rows'])} tasks of {results['steps']} updates"
            print(what.format(each) + "/results.json", runs.table(results), sep="\n")


def _parser(model: str | None, strategy: str | None) -> Parser:
    parser = Parser("continual", inspect.getdoc(continual) or "")
    run = parser.add_argument_group("the run")
    parser.option(run, "model", str | None, help="Name of a model (genrep models lists them).")
    parser.option(run, "strategy", str | None, help=f"One of {', '.join(strategies.names())}.")
    parser.option(run, "told", runs.Told, "auto", help="What the model reads as its condition: the number of the task, "
                  "the labels, nothing; auto: the task where the model has a conditional version.")  # fmt: skip
    parser.option(run, "steps", int | None, help=f"Updates of each task, of all its phases together; by default "
                  f"{Settings.steps}, or what {_EPOCHS} passes over the largest task take if less.")  # fmt: skip
    parser.option(run, "seeds", tuple[int, ...], (), help="Several, as 0,1,2, for means with intervals, each run in a "
                  "folder of its own; instead of seed.")  # fmt: skip
    parser.option(run, "out", str | None, help="The folder of the run.")
    parser.option(run, "config", str | None, help="YAML with any of these options; the command line wins.")
    parser.options("the stream", _fields(runs.Source), arguments.helps(runs.Source))
    measured = {"metrics": "By default all that the model can.", "features": "In which distances are measured.",
                "samples": "Drawn for each task.", "examples": "Of the test split of each task, at most."}  # fmt: skip
    parser.options("what is measured after each task", _fields(runs.Measured), measured)
    if strategy is not None:
        own = {f"{strategy}_{k}": p for k, p in strategies.options(strategy).items()}
        helps = {f"{strategy}_{k}": v for k, v in arguments.helps(strategies.get(strategy)).items()}
        parser.options(f"options of {strategy}", own, helps, arguments.summary(strategies.get(strategy)))
    if model is not None:
        parser.options(f"options of {model}", models.options(model), arguments.helps(models.get(model)))
    parser.options("settings of training, in each task", _SETTINGS, arguments.helps(Settings))
    return parser


def _fields(record: Any) -> dict[str, inspect.Parameter]:
    """The fields of a NamedTuple as options."""
    kinds, defaults = get_type_hints(record), record._field_defaults
    kind = inspect.Parameter.KEYWORD_ONLY
    return {k: inspect.Parameter(k, kind, default=defaults[k], annotation=kinds[k]) for k in record._fields}
