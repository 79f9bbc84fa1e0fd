"""Randomness as a function of position, so that a resumed run draws what the undisturbed one would have drawn."""

from __future__ import annotations

import numpy as np
import torch


def reseed(device: torch.device | str, *key: int) -> None:
    """Set the default generator of the CPU and of `device` to a function of `key`, e.g. (seed, stage, rank, update).

    Through the generator itself: `torch.manual_seed` walks all devices and takes eighty times as long.
    """
    mixed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
    torch.default_generator.manual_seed(mixed)
    device = torch.device(device)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(mixed)
