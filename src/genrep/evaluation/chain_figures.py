"""Figures of the analyses of diffusion models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from genrep.evaluation.chains import Decisions, Errors, SignalToNoise, Switch
from genrep.evaluation.figures import COLOURS
from genrep.evaluation.noise_probes import Map


def signal_figure(found: SignalToNoise, t: Tensor) -> Figure:
    """log SNR with its spread over the data, and its change from step to step."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(t, found.mean, color=COLOURS[0])
    left.fill_between(t, found.mean - found.std, found.mean + found.std, color=COLOURS[0], alpha=0.2, lw=0)
    left.axhline(0, color="black", lw=0.6)
    left.set(xlabel="t", ylabel="log SNR", title="signal against noise")
    right.plot(t[1:], found.change, color=COLOURS[1])
    right.set(xlabel="t", ylabel="change of log SNR in a step", title="what a step takes away")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def reconstruction_figure(curves: Mapping[str, Errors], steps: int, switches: Mapping[str, Switch]) -> Figure:
    """Errors of each set against t, with the points where foreign sets part from the first."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, e) in zip(COLOURS, curves.items(), strict=False):
        t = e.steps / steps
        for axes, values in ((left, e.absolute), (right, e.similarity)):
            mean, error = values.mean(1), 1.96 * values.std(1) / values.shape[1] ** 0.5
            axes.plot(t, mean, color=colour, label=name, lw=1.3)
            axes.fill_between(t, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
        if name in switches and switches[name].t == switches[name].t:
            left.axvline(switches[name].t, color=colour, ls=":", lw=1)
    left.set(xlabel="t", ylabel="mean absolute error", title="error of undoing x_t (dotted: parts from own)")
    right.set(xlabel="t", ylabel="MS-SSIM", title="similarity")
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.title.set_fontsize(9)
    return figure


def bound_figure(terms: Mapping[str, Tensor]) -> Figure:
    """The share of the bound up to each step, a curve for each label, e.g. at several moments of training."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (label, value) in enumerate(terms.items()):
        t = np.arange(1, len(value)) / (len(value) - 1)
        colour = COLOURS[i % len(COLOURS)]
        left.plot(t, value[:-1].clamp_min(1e-6), color=colour, label=label, lw=1.2)
        right.plot(t, value[:-1].cumsum(0) / value.sum(), color=colour, label=label, lw=1.2)
    left.set(xlabel="t", ylabel="nats", yscale="log", title="term of the bound")
    right.set(xlabel="t", ylabel="share up to t", ylim=(0, 1.02), title="cumulative share")
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def quality_figure(rows: Sequence[tuple[str, int, float, float, float]], floor: tuple[float, float, float]) -> Figure:
    """Fréchet distance against evaluations: (sampler, evaluations, value, low, high); `floor`: the reference's."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for colour, name in zip(COLOURS, dict.fromkeys(r[0] for r in rows), strict=False):
        own = sorted(r for r in rows if r[0] == name)
        x, y = [r[1] for r in own], np.array([r[2] for r in own])
        bars = np.array([[r[2] - r[3], r[4] - r[2]] for r in own]).T
        axes.errorbar(x, y, bars, color=colour, label=name, lw=1.2, capsize=2, marker="o", ms=3)
    axes.axhspan(floor[1], floor[2], color="black", alpha=0.1, lw=0, label="every ancestral step")
    axes.set(xlabel="network evaluations", ylabel="Fréchet distance", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def heat_map(found: Map, title: str, form: str = "{:.2f}") -> Figure:
    """Scores by layer or attribute and noise level, with their numbers."""
    figure = Figure(figsize=(1.6 + 0.75 * len(found.noises), 1.2 + 0.42 * len(found.layers)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(found.values, aspect="auto", cmap="viridis")
    middle = (np.nanmin(found.values) + np.nanmax(found.values)) / 2
    for (i, j), value in np.ndenumerate(found.values):
        colour = "white" if value < middle else "black"
        axes.text(j, i, form.format(value), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(found.noises)), [f"{n:g}" for n in found.noises])
    axes.set_yticks(range(len(found.layers)), found.layers)
    axes.set(xlabel="noise level t", title=title)
    figure.colorbar(image)
    return figure


def decision_figure(found: Decisions) -> Figure:
    """Agreement with the final class and confidence, from noise (left) to the sample (right)."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(found.t, found.agreement, color=COLOURS[0], label="share whose class is the final one")
    axes.plot(found.t, found.confidence, color=COLOURS[1], label="mean probability of the likeliest class")
    axes.set(xlabel="t", xlim=(1, 0), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure
