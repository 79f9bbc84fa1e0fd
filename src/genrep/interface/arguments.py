"""Parsers made from signatures: the keyword options of a function are options of the command line and of YAML."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

from docstring_parser import DocstringStyle, parse
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, Namespace

from genrep.naming import choose

Parameters = Mapping[str, inspect.Parameter]

# help of options that several commands have
DATA = (
    "A named set (genrep data lists them), a folder of images, a .npy, .npz, .csv, .parquet or .txt file, or hf:NAME."
)
SEED = "Of everything random."
DEVICE = "auto takes an accelerator when there is one."


class _Help(DefaultHelpFormatter):
    """Help as the options have it: it says types and defaults already, in words."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Help, self)._fill_text(part, width, indent) for part in text.split("\n\n"))


class Parser(ArgumentParser):
    """A parser whose errors are one clear line, as a ValueError."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"genrep {command}",
            usage=f"genrep {command} [OPTIONS]",
            description=description,
            print_config=None,
            formatter_class=_Help,
        )
        self.command, self.types = command, dict[str, Any]()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        found = re.match(r'Parser key "(\w+)":.*(?:Got|Given) value: (.*)$', message, re.DOTALL)
        if not found:
            raise ValueError(f"{message[:1].upper()}{message[1:]}. See genrep {self.command} --help.") from ex
        name, value = found[1], found[2].strip()
        raise ValueError(f"Expected --{name} to be {readable(self.types[name])}, got {value}.") from ex

    def option(self, group: Any, name: str, kind: Any, default: Any = None, *, help: str) -> None:
        """One option `--name`, in a group of the help, which says what it expects and its default."""
        self.types[name] = kind
        fallback = "" if default in (None, ()) else f"; default: {shown(default)}"
        text = f"{help} [{readable(kind)}{fallback}]"
        if kind is bool:
            action = group.add_argument(f"--{name}", action=ActionYesNo, nargs="?", default=default, help=text)
            action.metavar = "false"
        else:
            group.add_argument(f"--{name}", type=kind, default=default, help=text, metavar=_metavar(kind))

    def options(self, title: str, parameters: Parameters, helps: Mapping[str, str], description: str = "") -> None:
        """A group of options from a signature."""
        group = self.add_argument_group(title, description or None)
        for name, parameter in parameters.items():
            self.option(group, name, parameter.annotation, parameter.default, help=helps.get(name, ""))

    def read(self, arguments: list[str], config: Mapping[str, Any] | None = None, source: str = "") -> Namespace:
        """Parse; what `config` holds counts where the command line does not say otherwise."""
        given = list(self._normal(arguments))
        for key in config or {}:
            choose(key, self.types, f"option in {source}")
        return self.parse_args([*_as_arguments(config or {}), *given])

    def _normal(self, arguments: Iterable[str]) -> Iterable[str]:
        """Options with underscores and tuples with brackets; an unknown option is refused with the nearest known."""
        tuple_follows = False
        for argument in arguments:
            if not re.match(r"--[a-zA-Z]", argument):
                yield f"[{argument}]" if tuple_follows and not argument.startswith("[") else argument
                tuple_follows = False
                continue
            name, equals, value = argument[2:].partition("=")
            name = name.replace("-", "_")
            if name == "help":
                yield "--help"
                continue
            positive = name.removeprefix("no_")
            known = positive if self.types.get(positive) is bool else name
            choose(known, self.types, f"option of genrep {self.command}")
            tuple_follows = is_tuple(self.types[known])
            if equals and tuple_follows and not value.startswith("["):
                value = f"[{value}]"
            tuple_follows = tuple_follows and not equals
            yield f"--{name}{equals}{value}"


def given(arguments: Iterable[str]) -> set[str]:
    """Names of the options on a command line."""
    return {a[2:].partition("=")[0].replace("-", "_") for a in arguments if a.startswith("--")}


def value_of(name: str, arguments: list[str]) -> str | None:
    """The value of one option, before there is a parser that knows the others."""
    for i, argument in enumerate(arguments):
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
        if argument == f"--{name}" and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def number(name: str, text: str) -> float:
    """The value of a numeric option that is needed before there is a parser."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"Expected --{name} to be a number, got {text}.") from error


def _as_arguments(config: Mapping[str, Any]) -> Iterable[str]:
    for key, value in config.items():
        if value is not None:
            yield f"--{key}={value if isinstance(value, str) else json.dumps(value)}"


def is_tuple(kind: Any) -> bool:
    """Whether values are tuples (or None).

    >>> is_tuple(tuple[int, ...] | None), is_tuple(int)
    (True, False)
    """
    return any(typing.get_origin(k) is tuple for k in _alternatives(kind))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def readable(kind: Any) -> str:
    """A type in words.

    >>> readable(int | None), readable(tuple[float, float]), readable(Literal["a", "b"])
    ('a whole number', 'numbers separated by commas', 'one of a, b')
    """
    words = []
    for k in _alternatives(kind):
        if typing.get_origin(k) is Literal:
            words.append(f"one of {', '.join(map(str, typing.get_args(k)))}")
        elif typing.get_origin(k) is tuple:
            inside = {int: "whole numbers", float: "numbers", str: "names"}[typing.get_args(k)[0]]
            words.append(f"{inside} separated by commas")
        elif k is not type(None):
            words.append(_WORDS.get(k, getattr(k, "__name__", str(k))))
    return " or ".join(words)


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def shown(default: Any) -> str:
    """A default as the command line takes it.

    >>> shown(False), shown((0.9, 0.99)), shown(1e-3)
    ('false', '0.9,0.99', '0.001')
    """
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(next(k for k in _alternatives(kind) if k is not type(None)), "...")


def run_of(argv: list[str], command: str, parser: Parser) -> tuple[str, list[str]]:
    """The positional RUN of a command, and the other arguments."""
    if "--help" in argv and (not argv or argv[0].startswith("-")):
        parser.print_help()
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise ValueError(f"Which run? genrep {command} RUN ..., with the folder that genrep train wrote.")
    return argv[0], argv[1:]


def chosen(found: Namespace, parameters: Iterable[str], *, keep_none: bool = True) -> dict[str, Any]:
    """Some of the options that were read, by name."""
    values = {name: getattr(found, name) for name in parameters}
    return {k: v for k, v in values.items() if keep_none or v is not None}


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function that can be typed: not y, not tensors."""
    parameters = inspect.signature(function, eval_str=True).parameters
    typed = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k != "y"}
    return {k: p for k, p in typed.items() if "Tensor" not in str(p.annotation)}


def helps(documented: Any) -> dict[str, str]:
    """What the Args section of a docstring says of each parameter."""
    found = parse(inspect.getdoc(documented) or "", style=DocstringStyle.GOOGLE).params
    return {p.arg_name: " ".join((p.description or "").split()) for p in found}


def summary(documented: Any) -> str:
    """The docstring before its Args section."""
    return re.split(r"\n\s*(?:Args|Raises|Returns):", inspect.getdoc(documented) or "")[0].strip()


@contextmanager
def repeatable() -> Iterator[None]:
    """For commands that go on where they were cut when they are called again: Ctrl-C says so."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Stopped. The same command again goes on where this was cut.") from error


__all__ = [
    "DATA", "DEVICE", "SEED", "Namespace", "Parser", "chosen", "given", "helps", "keyword_options", "number",
    "readable", "repeatable", "run_of", "summary", "value_of",
]  # fmt: skip
