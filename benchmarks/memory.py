"""Peak memory of training a VAE: on MNIST, and on a folder of 200,000 colour images read on access.

A process of its own; libraries and data are included. The ratio is what is allowed over what is needed. 200,000 images
hold 2.4 GB of pixels; with a memory_limit of 16 MiB both folders are read on access, so that what grows is the names.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import comparison, peak_mebibytes, versions

IMAGES, FILES, SIDE, ALLOWED = 200_000, 100, 64, 1536.0


def train(data: str, steps: int) -> None:
    from genrep import data as data_sets
    from genrep.interface import runs

    splits = data_sets.load(data, memory_limit=2**24) if os.path.isdir(data) else data_sets.load(data)
    runs.fit("vae", splits, steps=steps, progress=False)


def fill(folder: Path, count: int) -> None:
    """So many names of 100 files: links, so that the disk is spared too."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(FILES):
        x = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), SIDE // 8, 0), SIDE // 8, 1)
        Image.fromarray(x).save(folder / f"{i:06}.png")
    for i in range(FILES, count):
        os.link(folder / f"{i % FILES:06}.png", folder / f"{i:06}.png")


def run() -> Iterator[dict[str, Any]]:
    mnist = peak_mebibytes(partial(train, "mnist", 500))
    yield comparison(
        "peak memory of training vae on MNIST, against what is allowed",
        mnist, ALLOWED, target=1.0, unit="MiB", versions=versions(),
    )  # fmt: skip
    peaks = []
    for count in (IMAGES // 100, IMAGES):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "images"
            fill(folder, count)
            peaks.append(peak_mebibytes(partial(train, str(folder), 10)))
    yield comparison(
        f"growth of peak memory from {IMAGES // 100} to {IMAGES} images in a folder, against their pixels",
        peaks[1] - peaks[0], IMAGES * 3 * SIDE**2 / 2**20, target=4.0, unit="MiB", peaks=peaks, versions=versions(),
    )  # fmt: skip
