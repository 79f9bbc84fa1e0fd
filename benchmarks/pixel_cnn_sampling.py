"""Sampling 64 images of 28 x 28 from the PixelCNN: cached columns against the network run once per pixel.

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


def run() -> Iterator[dict[str, Any]]:
    for output in ("categorical", "mixture"):
        torch.manual_seed(0)
        model = build("pixel_cnn", DataSpec((1, SIDE, SIDE), levels=256), output=output)
        part: Any = model.generative
        x, u = torch.rand(N, 1, SIDE, SIDE) * 2 - 1, torch.rand(N, part.draws)

        def cached() -> None:
            model.sample(N, seed=0)  # noqa: B023

        def one_row() -> None:
            for j in range(SIDE):
                x[:, 0, 0, j] = part.values(part.chain(x)[:, 0, 0, j]).draw(u)  # noqa: B023

        with torch.no_grad(), evaluating(model):
            ours, rival = alternate(cached, one_row)
        yield comparison(
            f"pixel_cnn sampling, {output}, {N} images of {SIDE} x {SIDE}, against once per pixel",
            ours,
            rival * SIDE,
            target=50.0,
            images_per_second=round(N / ours, 1),
            versions=versions(),
        )
