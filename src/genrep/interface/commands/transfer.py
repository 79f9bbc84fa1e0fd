"""Measure how models remove noise from data they have not seen."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import data as data_sets
from genrep import storage
from genrep.applications.transfer import denoise_foreign
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser
from genrep.interface.pictures import transfer_picture
from genrep.training.settings import pick_device


def transfer(argv: list[str]) -> None:
    """Noise foreign examples to abar = 1 - beta_1 and let the model of a run, and of others, denoise them.

    A daed takes one pass of its denoiser, any other diffusion model walks back the steps of its chain. Writes a table
    (.json) and a picture (.png): originals, noised, and what each model makes of them.
    """
    parser = Parser("transfer RUN", inspect.getdoc(transfer) or "")
    parser.option(parser, "data", str | None, help=arguments.DATA)
    parser.option(parser, "against", tuple[str, ...], (), help="Other run folders: A,B.")
    parser.option(parser, "beta_1", float, 0.1, help="Variance of the noise; a daed has its own.")
    parser.option(parser, "examples", int, 1000, help="Of the test split, at most.")
    parser.option(parser, "out", str | None, help="A .png; by default transfer.png in the first run folder.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "transfer", parser)
    found = parser.read(rest)
    if found.data is None:
        raise ValueError("--data is missing: genrep transfer RUN --data FOREIGN [--against RUN,RUN].")
    out = Path(found.out) if found.out is not None else Path(run) / "transfer.png"
    if out.suffix != ".png":
        raise ValueError(f"Expected --out to end in .png, got {out}.")
    rows, splits = {}, None
    for folder in (run, *found.against):
        model = runs.load(folder).to(pick_device(found.device))
        shape = model.data.shape if len(model.data.shape) == 3 else ()
        splits = data_sets.load(found.data, shape=shape)
        rows[folder] = denoise_foreign(model, splits, found.beta_1, examples_=found.examples, seed=found.seed)
    assert splits is not None
    if {row.noised.shape for row in rows.values()} == {next(iter(rows.values())).noised.shape}:
        transfer_picture(splits, rows, out)
    table = {f: {"steps": r.steps, "mae": r.error.asdict(), "ms_ssim": r.similarity.asdict()} for f, r in rows.items()}
    storage.write_json(out.with_suffix(".json"), table)
    for folder, row in rows.items():
        show.metrics({f"{folder}: MAE": row.error.asdict(), f"{folder}: MS-SSIM": row.similarity.asdict()})
    print(f"written: {out}, {out.with_suffix('.json')}")
