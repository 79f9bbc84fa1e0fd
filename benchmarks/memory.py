"""Peak memory of training a VAE: on MNIST, and on a folder of 200,000 colour images read on access.

A process of its own; libraries and data are included. The ratio is what is allowed over what is needed. The folder
holds 2.4 GB of pixels; 256 MiB of them may be in memory.
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

    splits = data_sets.load(data, memory_limit=2**28) if os.path.isdir(data) else data_sets.load(data)
    runs.fit("vae", splits, steps=steps, progress=False)


def fill(folder: Path) -> None:
    """200,000 names of 100 files: links, so that the disk is spared too."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(FILES):
        x = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), SIDE // 8, 0), SIDE // 8, 1)
        Image.fromarray(x).save(folder / f"{i:06}.png")
    for i in range(FILES, IMAGES):
        os.link(folder / f"{i % FILES:06}.png", folder / f"{i:06}.png")


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        fill(folder)
        for name, data, steps in (("MNIST", "mnist", 500), (f"{IMAGES} images in a folder", str(folder), 50)):
            peak = peak_mebibytes(partial(train, data, steps))
            yield comparison(
                f"peak memory of training vae on {name}, against what is allowed",
                peak, ALLOWED, target=1.0, unit="MiB", versions=versions(),
            )  # fmt: skip
