"""Complete examples: keep their first part and draw the rest."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor

from genrep import data as data_sets
from genrep import storage
from genrep.applications.completion import complete as completed
from genrep.applications.completion import masked
from genrep.contracts import Model
from genrep.interface import arguments, runs
from genrep.interface.arguments import Namespace, Parser
from genrep.training.settings import pick_device


def complete(argv: list[str]) -> None:
    """Keep the first part of test examples, or a text given, and draw the rest, with an autoregressive model.

    The picture shows in every row an example, what is kept of it, and completions.
    """
    parser = Parser("complete RUN", inspect.getdoc(complete) or "")
    parser.option(parser, "n", int, 8, help="Examples of the test split.")
    parser.option(parser, "draws", int, 6, help="Completions of each.")
    parser.option(parser, "known", float, 0.5, help="Share of an example that is kept; of images in whole rows.")
    parser.option(parser, "prompt", str | None, help="Of text: what is kept, instead of test examples.")
    parser.option(parser, "out", str | None, help="A .png, or for text a .txt; by default in the folder of the run.")
    parser.option(parser, "data", str | None, help="Where the data are now; by default where config.yaml says.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "complete", parser)
    found = parser.read(rest)
    if found.n < 1 or found.draws < 1 or not 0 < found.known < 1:
        raise ValueError(f"Expected --n, --draws >= 1 and 0 < --known < 1, got {found.n, found.draws, found.known}.")
    model, about = runs.load_with(run)
    model.to(pick_device(found.device))
    characters = about.get("characters")
    if found.prompt is not None and not characters:
        raise ValueError("--prompt is for models of text; this one was trained on other data.")
    out = Path(found.out or Path(run) / "samples" / ("completions.txt" if characters else "completions.png"))
    if out.suffix != (".txt" if characters else ".png"):
        raise ValueError(f"Expected --out to end in {'.txt' if characters else '.png'}, got {out}.")
    if characters:
        _text(model, characters, run, found, out)
    else:
        _pictures(model, run, found, out)
    print(f"{found.draws} completions each: {out}")


def _examples(run: str, found: Namespace) -> data_sets.Splits:
    return runs.data_of(Path(run), found.data)


def _pictures(model: Model, run: str, found: Namespace, out: Path) -> None:
    spec = model.data
    if len(spec.shape) != 3:
        raise ValueError(f"Completions are drawn for images and text; these data have shape {spec.shape}.")
    splits = _examples(run, found)
    index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(found.seed))[: found.n]
    x, y = splits.test[index]
    channels, height, width = spec.shape
    known = min(max(1, round(found.known * height)), height - 1) * width * channels
    condition = y if model.generative.reads_y else None
    drawn = completed(model, x, known, draws=found.draws, condition=condition, seed=found.seed)
    assert spec.levels is not None
    rows = torch.cat([x[:, None].long(), masked(x.long(), known, spec.levels // 2)[:, None], drawn.cpu()], 1)
    with storage.atomic(out) as temporary:
        data_sets.picture(rows.flatten(0, 1), spec, columns=rows.shape[1]).save(temporary, format="PNG")


def _text(model: Model, characters: list[str], run: str, found: Namespace, out: Path) -> None:
    length = model.data.size
    if found.prompt is not None:
        kept = data_sets.from_text(found.prompt, characters)[-(length - 1) :]
        if not kept:
            raise ValueError("Expected --prompt with at least one character.")
        x = torch.tensor([kept + [0] * (length - len(kept))])
        known = len(kept)
    else:
        splits = _examples(run, found)
        x, known = splits.test[torch.arange(found.n)].x, min(max(1, round(found.known * length)), length - 1)
    drawn: Tensor = completed(model, x, known, draws=found.draws, seed=found.seed)
    blocks = ["\n---\n".join(data_sets.as_text(each.cpu(), characters)) for each in drawn]
    storage.write_text(out, "\n======\n".join(blocks) + "\n")
    print(blocks[0])
