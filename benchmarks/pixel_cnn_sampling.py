"""Sampling 64 images of 28 x 28 value by value: exact caches against the network run once per pixel.

Both draw identical pixels at the same seed (tested). The rival runs one row, 28 whole passes, and is extrapolated to
784: every pass costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.common import alternate, comparison, versions
from genrep.contracts import DataSpec, evaluating
from genrep.models import build

N, SIDE = 64, 28
MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pixel_cnn", {}),
    ("pixel_cnn", {"output": "categorical"}),
    ("pixel_cnn", {"variant": "multiscale"}),
    ("pixel_cnn", {"variant": "plain"}),
    ("made", {}),
    ("pixel_transformer", {}),
    ("pixel_rnn", {"variant": "diagonal"}),
    ("pixel_rnn", {"variant": "row"}),
)


def run() -> Iterator[dict[str, Any]]:
    for name, options in MODELS:
        torch.manual_seed(0)
        model = build(name, DataSpec((1, SIDE, SIDE), levels=256), **options)
        part: Any = model.generative
        x, u = torch.rand(N, 1, SIDE, SIDE) * 2 - 1, torch.rand(N, part.draws)

        def cached() -> None:
            model.sample(N, seed=0)  # noqa: B023

        def one_row() -> None:
            for j in range(SIDE):
                x[:, 0, 0, j] = part.values(part.chain(x)[:, 0, 0, j]).draw(u)  # noqa: B023

        with torch.no_grad(), evaluating(model):
            ours, rival = alternate(cached, one_row, repeats=3 if name == "pixel_cnn" else 1)
        yield comparison(
            f"{', '.join((name, *options.values()))} sampling, {N} images of {SIDE} x {SIDE}, against once per pixel",
            ours,
            rival * SIDE,
            target=50.0,
            images_per_second=round(N / ours, 1),
            versions=versions(),
        )
