"""Pictures and figures of the analyses of diffusion models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genrep import storage
from genrep.applications.counterfactuals import Counterfactuals
from genrep.applications.splitting import Quality
from genrep.applications.transfer import Transfer
from genrep.contracts import DataSpec
from genrep.data.pictures import grid, to_bytes
from genrep.data.splits import Splits
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.features import examples
from genrep.evaluation.figures import COLOURS


def difference_picture(before: Tensor, after: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 -> (N, 3, H, W): white where nothing changed, red where it is brighter, blue darker."""
    change = (after.float() - before.float()).mean(1) / 255
    red, blue = change.clamp_min(0), (-change).clamp_min(0)
    scale = 2.0  # half of the range is full colour
    return torch.stack([1 - scale * blue, 1 - scale * (red + blue), 1 - scale * red], 1).clamp(0, 1).mul(255).byte()


def counterfactual_picture(
    found: Counterfactuals, spec: DataSpec, path: str | os.PathLike[str], names: Sequence[str] = ()
) -> None:
    """Four rows: original, noised, counterfactual, difference; above and below, what the classifier said."""
    rows = [to_bytes(x, spec) for x in (found.original, found.noised, found.changed)]
    rows = [x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x for x in rows]
    rows.append(difference_picture(rows[0], rows[2]))
    n, name = len(found.original), lambda c: str(names[c]) if names else str(c)
    figure = Figure(figsize=(1.1 * n + 1, 5.2), layout="constrained")
    axes = figure.subplots(4, n, squeeze=False)
    for i, (row, title) in enumerate(zip(rows, ("original", "noised", "counterfactual", "difference"), strict=True)):
        for j in range(n):
            axes[i][j].imshow(row[j].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[i][j].set(xticks=[], yticks=[])
        axes[i][0].set_ylabel(title, fontsize=8)
    for row, told in ((0, found.before), (2, found.after)):
        for j, (p, c) in enumerate(zip(*(v.tolist() for v in told.max(1)), strict=True)):
            axes[row][j].set_title(f"{name(c)} {p:.2f}", fontsize=7)
    _save(figure, path)


def decisions_figure(curves: Mapping[float, tuple[Tensor, Tensor]], path: str | os.PathLike[str]) -> None:
    """Mean probability of the class and its middle half, against t, one curve for each step size."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for colour, (scale, (t, p)) in zip(COLOURS, curves.items(), strict=False):
        low, high = p.quantile(0.25, dim=1), p.quantile(0.75, dim=1)
        axes.plot(t, p.mean(1), color=colour, label=f"step size {scale:g}")
        axes.fill_between(t, low, high, color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="time t (noise at 1, data at 0)", ylabel="p(class | x_t)", xlim=(1, 0), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def split_figure(rows: Sequence[Quality], path: str | os.PathLike[str]) -> None:
    """Fréchet distance, precision and recall against the log-SNR of the split; the whole chain as a dashed line."""
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    parts = [r for r in rows if r.beta_1]
    for i, (key, title) in enumerate(
        (("frechet", "Fréchet distance"), ("precision", "precision"), ("recall", "recall"))
    ):
        axes = figure.add_subplot(1, 3, i + 1)
        found: list[Estimate] = [getattr(r, key) for r in parts]
        axes.errorbar([r.log_snr for r in parts], [e.value for e in found], [1.96 * e.standard_error for e in found],
                      marker="o", ms=4, color=COLOURS[i], capsize=2)  # fmt: skip
        for whole in (getattr(r, key) for r in rows if not r.beta_1):
            axes.axhline(whole.value, color="#666666", ls="--", lw=1, label="whole chain")
        axes.set(title=title, xlabel="log-SNR where one pass takes over")
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def transfer_picture(splits: Splits, rows: Mapping[str, Transfer], path: str | os.PathLike[str]) -> None:
    """A grid: originals, noised, and a row for each model."""
    first = next(iter(rows.values()))
    n = len(first.noised)
    lines = [examples(splits.test, n)[0], first.noised, *[row.denoised for row in rows.values()]]
    with storage.atomic(path) as temporary:
        grid(torch.cat([to_bytes(x, splits.spec) for x in lines]), columns=n).save(temporary, format="PNG")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
