"""Tables and trees in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree
from torch import nn

from genrep import models as registry
from genrep.contracts import Model, Objective
from genrep.interface import arguments, runs
from genrep.training import ranks

_DEEPEST = 2  # levels of parts that are shown
_MOST = 8  # children of a part that are shown


def console() -> Console:
    """A console that leaves numbers as they are."""
    return Console(highlight=False)


def models(console: Console) -> None:
    """Name, family, capabilities and reference of every model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("model", "family", "can", "reference"):
        table.add_column(title, no_wrap=title in ("model", "family"), overflow="fold")
    for name in registry.names():
        recipe = registry.get(name)
        can = ", ".join(capabilities(registry.example(name)))
        table.add_row(f"[bold]{name}[/bold]", recipe.family, can, escape(recipe.reference))
    console.print(table)
    console.print("genrep models NAME shows the parts and options of one.")


def capabilities(model: Model) -> list[str]:
    """What a model can do, the methods of its likelihood in brackets."""
    plain = sorted(c for c in model.capabilities if ":" not in c)
    methods = sorted(c.split(":")[1] for c in model.capabilities if ":" in c)
    return plain + ([f"log_likelihood ({', '.join(methods)})"] if methods else [])


def model(name: str, console: Console) -> None:
    """The three parts of a model, on small images, and its options."""
    recipe, built = registry.get(name), registry.example(name)
    console.print(f"[bold]{name}[/bold]  {recipe.family}\n{escape(recipe.reference)}\n", soft_wrap=True)
    console.print(escape(arguments.summary(recipe)) + "\n", soft_wrap=True)
    console.print(f"can: {', '.join(capabilities(built))}\n", soft_wrap=True)
    console.print(f"Parts, for data of shape {' x '.join(map(str, built.data.shape))}:")
    tree = Tree("model", hide_root=True, guide_style="dim")
    _add(tree, "generative", built.generative, 0)
    inference = tree.add(f"[bold]inference[/bold]  {'' if len(list(built.inference.children())) else 'none is needed'}")
    for part, module in built.inference.named_children():
        _add(inference, part, module, 1)
    for i, objective in enumerate(built.objectives):
        assert isinstance(objective, Objective)
        stage = tree.add(f"[bold]{'objective' if len(built.objectives) == 1 else f'objective of stage {i}'}[/bold]  "
                         f"{type(objective).__name__}  {_first_line(objective)}")  # fmt: skip
        stage.add("minimises " + " + ".join(f"{w:g} {term}" for term, w in objective.weights.items() if w))
        for player, paths in objective.learns.items():
            stage.add(f"player {player} learns {', '.join(paths)}")
    console.print(tree)
    options(name, console)


def _add(tree: Tree, name: str, module: nn.Module, depth: int) -> None:
    count = sum(p.numel() for p in module.parameters())
    size = f"  [dim]{count:,} parameters[/dim]" if count else ""
    branch = tree.add(f"[bold]{name}[/bold]  {type(module).__name__}{size}  {_first_line(module) if depth < 2 else ''}")
    children = list(module.named_children()) if depth < _DEEPEST else []
    for child, part in children[:_MOST]:
        _add(branch, child, part, depth + 1)
    if len(children) > _MOST:
        branch.add(f"and {len(children) - _MOST} more")


def _first_line(module: nn.Module) -> str:
    doc = type(module).__doc__ if type(module).__module__.startswith("genrep") else None
    return escape((doc or "").strip().split("\n\n")[0].replace("\n", " "))


def options(name: str, console: Console) -> None:
    """The options of a model: default, what is expected, and what it does."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Options", title_justify="left", title_style="")
    for title in ("option", "default", "expects", "meaning"):
        table.add_column(title, no_wrap=title == "option")
    helps = arguments.helps(registry.get(name))
    for option, parameter in registry.options(name).items():
        default = "" if parameter.default in (None, ()) else arguments.shown(parameter.default)
        kind = arguments.readable(parameter.annotation)
        table.add_row(f"--{option}", escape(default), escape(kind), escape(helps.get(option, "")))
    console.print(table)


def data(found: Mapping[str, Any], console: Console) -> None:
    """What `genrep.data.describe` found, a line each."""
    lines: dict[str, str] = {}
    for key, value in found.items():
        if value not in (None, [], {}, 0):
            lines[key.replace("_", " ")] = _flat(key, value)
    width = max(map(len, lines)) + 2
    for key, text in lines.items():
        console.print(f"[bold]{key:<{width}}[/bold]{escape(text)}", soft_wrap=True)


def _flat(key: str, value: Any) -> str:
    if key == "shape":
        return " x ".join(map(str, value))
    if key == "range":
        return " to ".join(f"{v:g}" for v in value)
    if isinstance(value, dict):
        nested = any(isinstance(v, dict) for v in value.values())
        return ("; " if nested else ", ").join(
            f"{k}{' – ' if nested else ': '}{_flat('', v)}" for k, v in value.items()
        )
    if isinstance(value, (list, tuple)):
        return " ".join(value) if key == "split" else ", ".join(_flat("", v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metrics(found: Mapping[str, Any]) -> None:
    """Estimates with their intervals; where there is none, the reason."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("metric", "value", "interval", ""):
        table.add_column(title)
    for name, entry in found.items():
        if "reason" in entry or entry["value"] is None:
            table.add_row(name, "–", "", escape(entry.get("reason", "not defined here")))
            continue
        interval, error = entry["interval"], entry["standard_error"]
        known = error and interval["low"] is not None
        text = f"{interval['low']:.4g} to {interval['high']:.4g}" if known else ""
        table.add_row(name, f"{entry['value']:,.6g}", text, escape(str(entry["protocol"].get("kind", ""))))
    console.print(table)


def trained(what: str, done: runs.Trained, folder: Path, steps: str = "{} steps") -> None:
    """One line on how training went, and what to do next; of several processes one speaks."""
    if not ranks.first():
        return
    outcome = done.outcome
    last = next((r for r in reversed(outcome.log) if "terms" in r), None)
    speeds = sorted(r["images_per_second"] for r in outcome.log if "images_per_second" in r)
    weights = {k for objective in done.model.objectives for k in getattr(objective, "terms", {})}
    terms = {} if last is None else {k: v for k, v in last["terms"].items() if k in weights}
    parts = [f"{steps.format(outcome.steps)} in {duration(done.seconds)}"]
    parts += [f"{speeds[len(speeds) // 2]:,.0f} examples/s"] if speeds else []
    parts += [f"last {name} {value:.4g}" for name, value in terms.items()]
    parts += ["stopped early, best weights kept"] if outcome.stopped_early else []
    console().print(f"[bold]{escape(what)}[/bold]: {', '.join(parts)}", soft_wrap=True)
    if done.picture is not None:
        print(f"samples: {done.picture}")
    suffix = "txt" if done.picture is not None and done.picture.suffix == ".txt" else "png"
    print(f"next:    genrep sample {folder} --n 64 --out samples.{suffix}")
    print(f"         genrep evaluate {folder}")


def duration(seconds: float) -> str:
    """In words.

    >>> duration(5.04), duration(125), duration(7260)
    ('5.0 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
