"""Draw samples from a trained model."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrep.contracts import Model
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Namespace, Parser
from genrep.interface.samples import check_path, parse_condition, save_samples
from genrep.training.settings import pick_device


def sample(argv: list[str]) -> None:
    """Draw samples from the model of a run; `genrep sample RUN --help` shows the sampling options of its model."""
    run = None if not argv or argv[0].startswith("-") else argv[0]
    length = arguments.value_of("average", argv)
    average = None if length is None else arguments.number("average", length)
    model, about = (None, {}) if run is None else runs.load_with(run, average=average)
    own = {} if model is None else arguments.keyword_options(type(model.generative).forward)
    parser = Parser("sample RUN", inspect.getdoc(sample) or "")
    group = parser.add_argument_group("samples")
    parser.option(group, "n", int, 64, help="How many.")
    parser.option(group, "out", str | None, help="A .png (one picture), a .npz, a .txt for text, or a new folder for "
                  "PNG files. By default a picture in the folder samples of the run.")  # fmt: skip
    parser.option(group, "condition", str | None, help="Labels, by number or name, taken in turn: 3 or 0,1,2 (default: "
                  "all in turn). Or the numbers of a condition, in the units of the data.")  # fmt: skip
    parser.option(group, "seed", int, 0, help=arguments.SEED)
    parser.option(group, "device", str, "auto", help=arguments.DEVICE)
    parser.option(group, "batch", int, 256, help="How many are drawn at a time.")
    parser.option(group, "average", float | None, help="Of a run with snapshot_every: the length of the average of "
                  "its weights, relative to training, e.g. 0.1.")  # fmt: skip
    if model is not None:
        forward = type(model.generative).forward
        parser.options("options of its model", own, arguments.helps(forward), _plain(forward))
    run, rest = arguments.run_of(argv, "sample", parser)
    assert model is not None
    found = parser.read(rest)
    _draw(model, about, Path(run), found, arguments.chosen(found, own))


def _plain(documented: Any) -> str:
    return arguments.summary(documented).replace("`", "")


def _draw(model: Model, about: Mapping[str, Any], run: Path, found: Namespace, how: Mapping[str, Any]) -> None:
    if found.out is None and not run.is_dir():
        raise ValueError("--out is missing: where the samples go.")
    characters = about.get("characters")
    usual = run / "samples" / f"seed{found.seed}.{'txt' if characters else 'png'}"
    out = Path(found.out) if found.out is not None else usual
    check_path(out, model.data, text=bool(characters))
    if found.n < 1:
        raise ValueError(f"Expected --n of at least 1, got {found.n}.")
    y = parse_condition(found.condition, found.n, model, about)
    model.to(pick_device(found.device))
    with show.console().status(f"drawing {found.n} samples") if sys.stderr.isatty() else contextlib.nullcontext():
        x = model.sample(found.n, condition=y, seed=found.seed, batch=found.batch, **how)
    columns = about.get("columns", ())
    print(save_samples(x, model.data, out, condition=y, columns=columns, characters=characters))
