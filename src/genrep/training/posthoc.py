"""Averages of the weights whose length is chosen after training (Karras et al., 2024, section 3).

The average of exponent g at update t weighs the weights of update tau in proportion to tau^g:

    a_t = b a_(t-1) + (1 - b) w_t,    b = (1 - 1 / t)^(g + 1)

A length is the standard deviation of that profile relative to t: length^2 = (g + 1) / ((g + 2)^2 (g + 3)). Two averages
are kept in training, and now and then written to a file. A profile of any other length is their linear combination of
least squared distance, and so is the average.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from genrep import storage

LENGTHS = (0.05, 0.10)  # those kept in training
LONGEST = 0.25


def exponent(length: float) -> float:
    """The exponent g of a relative length, the largest root of the cubic above.

    >>> round(exponent(0.05), 2), round(exponent(0.10), 2)
    (16.97, 6.94)
    """
    if not 0 < length <= LONGEST:
        raise ValueError(f"Expected an average's length in (0, {LONGEST}], relative to training, got {length}.")
    roots = np.roots([1.0, 7.0, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


class PowerAverages:
    """The averages of `LENGTHS` of a module's parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.updates = 0
        self._live = {k: v for k, v in storage.state(module).items() if isinstance(v, nn.Parameter)}
        self._kept = [[w.detach().clone() for w in self._live.values()] for _ in LENGTHS]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        live = [w.detach() for w in self._live.values()]
        for length, kept in zip(LENGTHS, self._kept, strict=True):
            new = 1 - (1 - 1 / self.updates) ** (exponent(length) + 1)
            torch._foreach_lerp_(kept, live, new)  # pyright: ignore[reportPrivateImportUsage]

    def tensors(self) -> dict[str, Tensor]:
        """By the number of the length and the parameter's name: "0/net.weight"."""
        return {f"{i}/{k}": w for i, kept in enumerate(self._kept) for k, w in zip(self._live, kept, strict=True)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, w in self.tensors().items():
            w.copy_(tensors[name])


def write(folder: Path, averages: PowerAverages) -> None:
    """Keep the averages as they are now, in a file named by the update."""
    about = {"updates": averages.updates, "lengths": list(LENGTHS)}
    storage.save(folder / f"{averages.updates:08d}.safetensors", averages.tensors(), about)


def kept(folder: Path) -> list[int]:
    """The updates at which averages were kept, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdigit())


def recombined(folder: Path, length: float, updates: int | None = None) -> dict[str, Tensor]:
    """The average of that length at the end of `updates` (the last kept one by default), by the parameters' names.

    Raises ValueError where nothing was kept, or not at that update.
    """
    steps = kept(folder)
    if not steps:
        raise ValueError(
            f"There are no averages in {folder}: train with snapshot_every=N, e.g. a twentieth of the steps."
        )
    end = steps[-1] if updates is None else updates
    if end not in steps:
        raise ValueError(f"Expected one of the updates {steps}, got {end}.")
    members = [(t, i) for t in steps if t <= end for i in range(len(LENGTHS))]
    share = coefficients([(exponent(LENGTHS[i]), t) for t, i in members], (exponent(length), end))
    found: dict[str, Tensor] = {}
    for t in [t for t in steps if t <= end]:
        tensors = storage.load(folder / f"{t:08d}.safetensors").tensors
        for (step, i), c in zip(members, share, strict=True):
            own = {k.partition("/")[2]: w for k, w in tensors.items() if k.startswith(f"{i}/")} if step == t else {}
            for name, w in own.items():
                found[name] = found.get(name, torch.zeros_like(w, dtype=torch.float64)) + c * w.double()
    return {name: w.float() for name, w in found.items()}


def coefficients(members: Iterable[tuple[float, int]], target: tuple[float, int]) -> list[float]:
    """Coefficients with sum one of the profiles (g, t) whose combination is nearest to the target's.

    <(g, s), (h, t)> = (g + 1) (h + 1) / (g + h + 1) min(s, t)^(g + h + 1) / (s^(g + 1) t^(h + 1)).
    """
    g, t = (np.array(column, dtype=np.float64) for column in zip(*members, strict=True))
    n = len(g)
    system, right = np.ones((n + 1, n + 1)), np.ones(n + 1)
    system[:n, :n], system[n, n] = _products(g[:, None], t[:, None], g, t), 0
    right[:n] = _products(g, t, *target)
    scale = system[:n, :n].diagonal().mean()
    system[:n, :n] /= scale
    right[:n] /= scale
    return np.linalg.lstsq(system, right, rcond=1e-13)[0][:n].tolist()


def _products(g: np.ndarray, s: np.ndarray, h: np.ndarray | float, t: np.ndarray | float) -> np.ndarray:
    low = np.minimum(s, t)
    return (g + 1) * (h + 1) / (g + h + 1) * (low / s) ** g * (low / t) ** h * low / (s * t)
