"""Conditional models of calorimeter showers against the simulator: channels, mean response, resolution, speed.

`models` and `settings` as in `compare`; `data` holds log(1 + response), as `showers` does. A budget says `steps` and
`samples`, test particles each of which every model gives one shower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrep.contracts import Model
from genrep.data.shower_model import CONDITIONS, simulate
from genrep.data.splits import Splits
from genrep.evaluation.calorimeter import channel_error, channel_wasserstein, channels
from genrep.evaluation.figures import COLOURS
from genrep.interface.pieces import kept, pm, rows_of, trained

NEEDED = ("data", "models")
KEYS = ("models", "settings", "label")
BUDGET = ("steps", "samples")
_BINS = 6  # of energy, evenly in its logarithm
_AGAIN = 1000  # seeds from here on: the bundled showers have smaller ones


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows, splits = rows_of(said)
    if not splits.spec.condition or splits.spec.levels is not None:
        raise ValueError(f"{splits.name} is no set of showers: expected real values log(1 + response) and a condition.")
    x, y = splits.test[torch.arange(min(how.get("samples", 2000), len(splits.test)))]
    assert y is not None
    truth, particle = undone(x), _units(y, splits)
    energy = particle[:, list(splits.about["condition"]).index("energy")].contiguous()
    found = {}
    if splits.name == "showers":
        again = kept(folder, "simulator", lambda: _simulated(particle, truth, energy, seed))
        found["the simulator again"] = again
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        found[row.label] = kept(folder, row.label, lambda m=model: _drawn(m, y, truth, energy, seed))
    figure = _figure(found, folder / "response.png")
    return {
        "protocol": f"{how['steps']} updates a row; one shower for each of {len(x)} test particles; channels in "
        "photoelectrons, with the logarithm undone. MAE: between channels of the shower and of that generated for the "
        "same particle. Wasserstein: of all channels' values pooled. Response, resolution: largest relative difference "
        f"of the mean, and mean ratio of the relative spread, of the total in {_BINS} bins of energy.",
        "columns": ["row", "channel MAE", "Wasserstein", "response off by", "resolution ratio", "ms per shower"],
        "rows": [_line(label, entry) for label, entry in found.items()],
        "pictures": {"total response against energy": figure.name},
    }


def undone(x: Tensor) -> Tensor:
    """Responses from log(1 + response), those below zero at zero: (N, 1, H, W)."""
    return x.double().expm1().clamp_min(0)


def _units(y: Tensor, splits: Splits) -> Tensor:
    """Conditions in the units of the user."""
    std, mean = (torch.tensor(splits.about[f"condition_{k}"]) for k in ("std", "mean"))
    return y.cpu() * std + mean


def _simulated(particle: Tensor, truth: Tensor, energy: Tensor, seed: int) -> dict[str, Any]:
    """Other showers of the same particles; rounding may have moved E a little below m or a photon's mass off zero."""
    particle = particle.clone()
    for name in ("mass", "charge"):
        column = CONDITIONS.index(name)
        particle[:, column] = torch.where(particle[:, column].abs() < 1e-4, 0.0, particle[:, column])
    start = time.perf_counter()
    again = simulate(particle, seed=_AGAIN + seed)
    return _compared(again[:, None].double(), truth, energy, time.perf_counter() - start)


def _drawn(model: Model, y: Tensor, truth: Tensor, energy: Tensor, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    x = model.sample(len(y), condition=y, seed=seed)
    seconds = time.perf_counter() - start
    return _compared(undone(x.cpu()), truth, energy, seconds)


def _compared(x: Tensor, truth: Tensor, energy: Tensor, seconds: float) -> dict[str, Any]:
    a, b = channels(truth), channels(x)
    error, distance = channel_error(real=a, generated=b), channel_wasserstein(real=a, generated=b).pooled
    edges = torch.logspace(math.log10(float(energy.min())), math.log10(float(energy.max())), _BINS + 1)
    bins = torch.bucketize(energy, edges[1:-1])
    totals = [
        [(t[bins == k].mean().item(), t[bins == k].std().item()) for k in range(_BINS)] for t in (a.sum(1), b.sum(1))
    ]
    return {
        "mae": [error.value, error.standard_error],
        "wasserstein": [distance.value, distance.standard_error],
        "energy": [energy[bins == k].mean().item() for k in range(_BINS)],
        "truth": totals[0],
        "total": totals[1],
        "milliseconds": 1000 * seconds / len(x),
    }


def _line(label: str, entry: Mapping[str, Any]) -> list[str]:
    pairs = list(zip(entry["truth"], entry["total"], strict=True))
    off = max(abs(m / t - 1) for (t, _), (m, _) in pairs)
    spread = sum((s / m) / (r / t) for (t, r), (m, s) in pairs) / len(pairs)
    return [label, pm(*entry["mae"]), pm(*entry["wasserstein"]), f"{100 * off:.0f} %", f"{spread:.2f}",
            f"{entry['milliseconds']:.3f}"]  # fmt: skip


def _figure(found: Mapping[str, Any], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    mean, spread = figure.subplots(1, 2)
    truth = next(iter(found.values()))
    for i, (label, entry) in enumerate({"test showers": {**truth, "total": truth["truth"]}, **found}.items()):
        style = {"color": "black", "lw": 2} if i == 0 else {"color": COLOURS[(i - 1) % len(COLOURS)], "lw": 1}
        mean.loglog(entry["energy"], [m for m, _ in entry["total"]], label=label, **style)
        spread.semilogx(entry["energy"], [s / m for m, s in entry["total"]], **style)
    mean.set(xlabel="energy, GeV", ylabel="mean response, photoelectrons")
    spread.set(xlabel="energy, GeV", ylabel="relative spread of the response")
    mean.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    return path
