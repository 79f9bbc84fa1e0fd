"""Figures of the report, as SVG text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe & Ito


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def trilemma(report: Mapping[str, Any]) -> str | None:
    """Quality against coverage, the area of a point by the speed of sampling; None where no model has all three.

    Reference: Xiao, Kreis & Vahdat (2022), figure 1, for the three demands.
    """
    points = []
    for name, entry in report["models"].items():
        found = [entry["metrics"].get(key, {}) for key in ("coverage", "precision", "sampling_speed")]
        if all(f.get("value") is not None for f in found):
            points.append((name, *found))
    if not points:
        return None
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.add_subplot()
    slowest = min(p[3]["value"] for p in points)
    for i, (name, coverage, precision, speed) in enumerate(points):
        colour = COLOURS[i % len(COLOURS)]
        x, y, size = coverage["value"], precision["value"], 40 * (1 + math.log10(speed["value"] / slowest)) ** 2
        axes.errorbar(x, y, 1.96 * precision["standard_error"], 1.96 * coverage["standard_error"], color=colour, lw=1)
        axes.scatter(x, y, s=size, color=colour, alpha=0.6, label=f"{name}: {speed['value']:,.0f} samples/s")
    low = max(0.0, min(min(p[1]["value"], p[2]["value"]) for p in points) - 0.15)
    axes.set(xlabel="coverage of the data", ylabel="precision of the samples", xlim=(low, 1.03), ylim=(low, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, markerscale=0.6, loc="lower left")
    return _svg(figure)


def curves(report: Mapping[str, Any]) -> str | None:
    """Every logged loss term against the updates, one panel for each model."""
    models = [(name, e["training"]["log"]) for name, e in report["models"].items() if e["training"].get("log")]
    if not models:
        return None
    columns = min(2, len(models))
    rows = math.ceil(len(models) / columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows), layout="constrained")
    for i, (name, log) in enumerate(models):
        axes = figure.add_subplot(rows, columns, i + 1)
        terms = dict.fromkeys(k for record in log for k in record.get("terms", {}) if "gradient" not in k)
        for colour, term in zip(COLOURS, terms, strict=False):
            line = [(r["step"], r["terms"][term]) for r in log if term in r.get("terms", {})]
            axes.plot(*zip(*line, strict=True), label=term, color=colour, lw=1.2)
        axes.set(title=name, xlabel="updates")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def histograms(real: Any, generated: Any, names: list[str]) -> Figure:
    """For tables: each column of data and samples as two outlines."""
    shown = min(len(names), 12)
    columns = min(4, shown)
    figure = Figure(figsize=(2.6 * columns, 2.0 * math.ceil(shown / columns)), layout="constrained")
    for i in range(shown):
        axes = figure.add_subplot(math.ceil(shown / columns), columns, i + 1)
        low, high = real[:, i].min(), real[:, i].max()
        for values, colour, label in ((real, "#999999", "test data"), (generated, COLOURS[0], "samples")):
            axes.hist(
                values[:, i], bins=30, range=(low, high), density=True, histtype="step", color=colour, label=label
            )
        axes.set_title(names[i], fontsize=8)
        axes.tick_params(labelsize=6)
        if i == 0:
            axes.legend(fontsize=6, frameon=False)
    return figure
