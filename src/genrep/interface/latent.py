"""Pictures of latent spaces: codes against the prior, classes, and what dense and empty regions decode to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from genrep.contracts import Model
from genrep.data.pictures import grid
from genrep.evaluation.figures import COLOURS
from genrep.evaluation.holes import Holes, Latents, extremes

_DOTS = 1500  # of each side in a scatter plot
_SHOWN = 32  # decoded pictures of each region


def plane(*clouds: Tensor) -> list[np.ndarray]:
    """Each cloud (N, D) in the plane of the first two principal components of the first, (N, 2)."""
    first = clouds[0].double()
    mean = first.mean(0)
    if first.shape[1] <= 2:
        return [torch.nn.functional.pad(c.double() - mean, (0, 2 - c.shape[1])).numpy() for c in clouds]
    directions = torch.linalg.svd(first - mean, full_matrices=False).Vh[:2].T
    return [((c.double() - mean) @ directions).numpy() for c in clouds]


def _bare(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def holes_figure(model: Model, found: Holes, draws: Latents, path: Path) -> Path:
    """Codes and prior in one plane, the ratio over the draws of the prior, and for images what both ends decode to."""
    image = len(model.data.shape) == 3 and model.data.shape[0] in (1, 3)
    figure = Figure(figsize=(9.6 if image else 6.4, 5.4 if image else 3.2), layout="constrained")
    axes = figure.subplots(2 if image else 1, 2, squeeze=False)
    q, p = plane(draws.posterior[:_DOTS], draws.prior[:_DOTS])
    axes[0, 0].scatter(*p.T, s=3, color=COLOURS[1], label="prior")
    axes[0, 0].scatter(*q.T, s=3, color=COLOURS[0], label="codes")
    axes[0, 0].legend(fontsize=7, markerscale=3)
    _bare(axes[0, 0], "codes of test data and draws of the prior")
    shade = axes[0, 1].scatter(*p.T, s=3, c=found.log_ratio[:_DOTS].clamp(-5, 2), cmap="viridis")
    figure.colorbar(shade, ax=axes[0, 1])
    _bare(axes[0, 1], f"log q / p at the prior; hole mass {found.mass.value:.3f} ± {found.mass.standard_error:.3f}")
    if image:
        for place, (title, index) in enumerate(
            zip(("densest tenth, decoded", "emptiest tenth, decoded"), extremes(found.log_ratio, _SHOWN), strict=True)
        ):
            axes[1, place].imshow(np.asarray(_decoded(model, draws, index)), cmap="grey", interpolation="nearest")
            _bare(axes[1, place], title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _decoded(model: Model, draws: Latents, index: Tensor) -> Any:
    y = None if draws.y is None else draws.y[index]
    likelihood: Any = model.generative.get_submodule("likelihood")
    z = draws.prior[index].to(model.device)
    with torch.no_grad():
        x = model.decode(z, condition=y if likelihood.reads_y else None).cpu()
    return picture_of(x, model)


def picture_of(x: Tensor, model: Model) -> Any:
    """Images as the data set holds them on one sheet, eight in a row."""
    from genrep.data.pictures import to_bytes

    return grid(to_bytes(x, model.data), columns=8)


def margins_figure(normals: Tensor, bits: Tensor, first: Tensor, path: Path) -> Path:
    """A histogram of each normal (N, C), beside N(0, 1), and bit (N, D): of examples that are `first` (N,), and others.

    As figures 9.6.2, 9.6.5 and 9.6.6 of the thesis: what tells two classes apart in a latent space.
    """
    count = normals.shape[1] + bits.shape[1]
    figure = Figure(figsize=(1.1 * count, 2.6), layout="constrained")
    panels = figure.subplots(2, count, squeeze=False)
    for line, (chosen, name) in enumerate([(first, "first class"), (~first, "the rest")]):
        for j, column in enumerate(normals[chosen].T):
            _bell(panels[line, j], column.numpy(), f"C{line}")
        for j, column in enumerate(bits[chosen].T, normals.shape[1]):
            share = float(column.mean())
            panels[line, j].bar([0, 1], [1 - share, share], color=f"C{line}")
            panels[line, j].set(xlim=(-0.6, 1.6), ylim=(0, 1))
        panels[line, 0].set_ylabel(name, fontsize=8)
    names = [*(f"normal {j + 1}" for j in range(normals.shape[1])), *(f"bit {j + 1}" for j in range(bits.shape[1]))]
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=7)
    for axes in panels.ravel():
        axes.set(yticks=[])
        axes.tick_params(labelsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _bell(axes: Any, z: np.ndarray, colour: str) -> None:
    at = np.linspace(-3.5, 3.5, 60)
    axes.hist(z, bins=30, range=(-3.5, 3.5), density=True, color=colour)
    axes.plot(at, np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi), color="black", linewidth=0.8)


def classes_figure(
    clouds: Sequence[tuple[str, Tensor, Tensor]], path: Path, *, title: str = "", dots: int = 200
) -> Path:
    """Codes coloured by class, a panel for each (title, codes (N, D), labels (N,)); the plane is by t-SNE.

    As the figure 4.1.1 of the thesis: the latent space of models side by side.
    """
    from sklearn.manifold import TSNE  # only here: it imports half of SciPy

    figure = Figure(figsize=(3.4 * len(clouds), 3.4), layout="constrained")
    axes = figure.subplots(1, len(clouds), squeeze=False)[0]
    for place, (name, codes, labels) in zip(axes, clouds, strict=True):
        kept = torch.cat([(labels == k).nonzero().flatten()[:dots] for k in labels.unique()])
        flat = codes[kept].float().numpy()
        at = TSNE(2, init="pca", perplexity=30, random_state=0, max_iter=500).fit_transform(flat)
        place.scatter(*at.T, s=3, c=labels[kept].numpy(), cmap="tab10")
        _bare(place, name)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
