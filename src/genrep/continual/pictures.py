"""Pictures of a continual run: masses of classes per task, score matrices, samples of every task seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from genrep import storage
from genrep.continual.scores import LOWER_IS_BETTER, Matrix
from genrep.continual.strategy import Strategy
from genrep.data.pictures import picture
from genrep.data.splits import Splits
from genrep.data.streams import Stream


def masses(stream: Stream, path: str | os.PathLike[str]) -> None:
    """A bar for each task, as high as it has training examples, in the colours of their classes."""
    counts = np.asarray(
        stream.about.get("class_counts", {}).get("train", [[n] for n in stream.about["counts"]["train"]])
    )
    figure = Figure(figsize=(1.6 + 0.6 * len(counts), 3.4), layout="constrained")
    axes = figure.add_subplot()
    bottom, colours = np.zeros(len(counts)), colormaps["tab20"]
    names = stream.about.get("class_names", ["examples"])
    labelled = 1 < counts.shape[1] <= 20
    for c, column in enumerate(counts.T):
        axes.bar(range(1, len(counts) + 1), column, bottom=bottom, color=colours(c % 20), width=0.8,
                 label=str(names[c]) if labelled else None)  # fmt: skip
        bottom += column
    axes.set(xlabel="task", ylabel="training examples", xticks=range(1, len(counts) + 1))
    if labelled:
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def heat_map(matrix: Matrix, metric: str, path: str | os.PathLike[str]) -> None:
    """The lower-triangular matrix of one metric; bright is good."""
    heat_maps({"": matrix}, metric, path)


def heat_maps(matrices: Mapping[str, Matrix], metric: str, path: str | os.PathLike[str], *, across: int = 4) -> None:
    """Lower-triangular matrices of one metric by title, in colours of one scale; bright is good."""
    size, lower = max(map(len, matrices.values())), LOWER_IS_BETTER[metric]
    values = np.concatenate([np.concatenate([np.asarray(row) for row in m]) for m in matrices.values()])
    low, high = float(values.min()), float(values.max())
    columns = min(across, len(matrices))
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(1.6 + columns * (0.3 + 0.5 * size), rows * (1.2 + 0.45 * size)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    image = None
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=False):
        image = _triangle(axes, matrix, (low, high), lower=lower)
        axes.set_title(title, fontsize=9)
    assert image is not None
    figure.supxlabel("measured on task", fontsize=9)
    figure.supylabel("after task", fontsize=9)
    figure.colorbar(image, ax=panels, shrink=0.8, label=f"{metric} ({'lower' if lower else 'higher'} is better)")
    _save(figure, path)


def _triangle(axes: Axes, matrix: Matrix, limits: tuple[float, float], *, lower: bool) -> AxesImage:
    size = len(matrix)
    values = np.full((size, size), np.nan)
    for i, row in enumerate(matrix):
        values[i, : len(row)] = row
    image = axes.imshow(values, cmap="viridis_r" if lower else "viridis", vmin=limits[0], vmax=limits[1])
    middle = sum(limits) / 2
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            bright = (value < middle) == lower
            axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=7, color="black" if bright else "white")
    ticks = range(size)
    axes.set(xticks=ticks, yticks=ticks, xticklabels=[t + 1 for t in ticks], yticklabels=[t + 1 for t in ticks])
    return image


def samples(
    strategy: Strategy, tasks: Sequence[Splits], path: str | os.PathLike[str], *, n: int = 12, seed: int = 0
) -> None:
    """Images of every task seen, a row each: on the conditions of its test examples where the model reads some."""
    rows = []
    for t, task in enumerate(tasks):
        model = strategy.model_for(t)
        y = task.test[torch.arange(n) % len(task.test)].y if model.generative.reads_y else None
        rows.append(model.sample(n, condition=y, seed=seed).cpu())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic(path) as temporary:
        picture(torch.cat(rows), tasks[0].spec, columns=n).save(temporary, format="PNG")


def recalled(strategy: Strategy, tasks: Sequence[Splits], path: str | os.PathLike[str], *, n: int = 12) -> None:
    """Images of every task seen as the strategy itself recalls them, a row each, if it does."""
    rows = [strategy.recalled(t, n) for t in range(len(tasks))]
    found = [row.cpu() for row in rows if row is not None]
    if not found:
        return
    n = min(map(len, found))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic(path) as temporary:
        picture(torch.cat([row[:n] for row in found]), tasks[0].spec, columns=n).save(temporary, format="PNG")


def latent_space(spaces: Mapping[str, Sequence[Tensor]], path: str | os.PathLike[str]) -> None:
    """A panel for each title: points (n, D) of each task in its colour, on the two principal axes of the last panel."""
    titles = list(spaces)
    last = torch.cat(list(spaces[titles[-1]])).cpu()
    centre = last.mean(0)
    axes_of = torch.linalg.svd(last - centre, full_matrices=False).Vh[:2].T
    figure = Figure(figsize=(1.2 + 3.4 * len(titles), 3.6), layout="constrained")
    panels, colours = figure.subplots(1, len(titles), squeeze=False)[0], colormaps["tab10"]
    for axes, title in zip(panels, titles, strict=True):
        for task, points in enumerate(spaces[title]):
            x, y = ((points.cpu() - centre) @ axes_of).T.numpy()
            axes.scatter(x, y, s=4, color=colours(task % 10), label=f"task {task + 1}", linewidths=0, alpha=0.7)
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    panels[-1].legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
