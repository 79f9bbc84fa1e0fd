"""Replace the last steps of a diffusion model by one denoising pass."""

from __future__ import annotations

import inspect
from pathlib import Path

from genrep import storage
from genrep.applications.splitting import diffusion_of, log_snr, quality_of_splits
from genrep.applications.splitting import split as split_of
from genrep.distributions.subchains import steps_to
from genrep.evaluation.extractors import extractor
from genrep.interface import arguments, runs, show
from genrep.interface.arguments import Parser
from genrep.interface.pictures import split_figure
from genrep.interface.samples import check_path, parse_condition, save_samples
from genrep.training.settings import pick_device


def split(argv: list[str]) -> None:
    """Sample a trained diffusion model whose steps up to the noise beta_1 are replaced by one denoising pass.

    With one value of beta_1 it draws samples; with several it measures Fréchet distance, precision
    and recall at each against the log-SNR of the split, and writes a table (.json) and a figure (.png).
    """
    parser = Parser("split RUN", inspect.getdoc(split) or "")
    parser.option(parser, "beta_1", tuple[float, ...], (), help="Noise at which the one pass begins, in (0, 1).")
    parser.option(parser, "n", int, 64, help="How many samples, for one value.")
    parser.option(parser, "condition", str | None, help="Labels, by number or name: 3 or 0,1,2.")
    parser.option(parser, "samples", int, 2000, help="Drawn for each value that is measured.")
    parser.option(parser, "examples", int, 2000, help="Of the test split, at most.")
    parser.option(parser, "data", str | None, help="By default the data of the run.")
    parser.option(parser, "out", str | None, help="By default split.png in the run folder.")
    parser.option(parser, "seed", int, 0, help=arguments.SEED)
    parser.option(parser, "device", str, "auto", help=arguments.DEVICE)
    run, rest = arguments.run_of(argv, "split", parser)
    found = parser.read(rest)
    if not found.beta_1:
        raise ValueError(
            "--beta_1 is missing: the noise at which one pass replaces the rest, e.g. 0.1 or 0.01,0.1,0.2."
        )
    out = Path(found.out) if found.out is not None else Path(run) / "split.png"
    model, about = runs.load_with(run)
    model.to(pick_device(found.device))
    chain = diffusion_of(model).chain
    for beta in found.beta_1:
        k = steps_to(chain.schedule, beta)
        print(f"beta_1 {beta:g}: one pass for {k} of {chain.steps} steps, log-SNR {log_snr(model, beta):.2f}")
    if len(found.beta_1) == 1:
        check_path(out, model.data)
        y = parse_condition(found.condition, found.n, model, about)
        x = split_of(model, found.beta_1[0]).sample(found.n, condition=y, seed=found.seed)
        print(save_samples(x, model.data, out, condition=y))
        return
    splits = runs.data_of(Path(run), found.data)
    rows = quality_of_splits(model, splits, extractor("auto", splits), found.beta_1, samples=found.samples,
                             examples_=found.examples, seed=found.seed)  # fmt: skip
    split_figure(rows, out)
    kept = [
        {**row._asdict(), **{k: getattr(row, k).asdict() for k in ("frechet", "precision", "recall")}} for row in rows
    ]
    for entry in kept:
        entry["log_snr"] = entry["log_snr"] if entry["beta_1"] else None
    storage.write_json(out.with_suffix(".json"), kept)
    for row in rows:
        title = f"beta_1 {row.beta_1:g}" if row.beta_1 else "whole chain"
        show.metrics({f"{title}: {k}": getattr(row, k).asdict() for k in ("frechet", "precision", "recall")})
    print(f"written: {out}, {out.with_suffix('.json')}")
