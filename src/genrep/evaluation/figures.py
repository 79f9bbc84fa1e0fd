"""Figures of the report, as SVG text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe & Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


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
    figure = Figure(figsize=(5.2, 4.4 + 0.2 * len(points)))
    axes = figure.add_subplot()
    slowest = min(p[3]["value"] for p in points)
    for i, (name, coverage, precision, speed) in enumerate(points):
        colour, marker = style(i)
        x, y = coverage["value"], precision["value"]
        size = 30 * (1 + math.log10(max(1.0, speed["value"] / slowest))) ** 2
        axes.errorbar(x, y, _arms(precision), _arms(coverage), color=colour, lw=1)
        label = f"{name}: {speed['value']:,.{0 if speed['value'] >= 10 else 2}f} samples/s"
        axes.scatter(x, y, s=size, color=colour, marker=marker, alpha=0.6, label=label)
    for which, key in (("x", 1), ("y", 2)):
        low, high = min(p[key]["value"] for p in points), max(p[key]["value"] for p in points)
        room = max(0.05, 0.25 * (high - low))
        getattr(axes, f"set_{which}lim")(max(0.0, low - room) - 0.02, min(1.0, high + room) + 0.02)
    axes.set(xlabel="coverage of the data", ylabel="precision of the samples")
    axes.grid(alpha=0.3)
    # below the axes, where it hides no point
    axes.legend(fontsize=8, frameon=False, markerscale=0.6, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=1)
    return _svg(figure)


def style(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th model: pairs repeat after 56."""
    return COLOURS[i % len(COLOURS)], MARKERS[(i // len(COLOURS)) % len(MARKERS)]


def _arms(found: Mapping[str, Any]) -> list[list[float]] | None:
    """The arms of an interval around its value, or none where it is unknown."""
    low, high = found["interval"]["low"], found["interval"]["high"]
    return None if low is None else [[max(0.0, found["value"] - low)], [max(0.0, high - found["value"])]]


def likelihoods(report: Mapping[str, Any]) -> str | None:
    """Bits per dimension with their intervals, best on top; filled where exact, hollow where a bound or estimate."""
    rows = [(name, m) for name, e in report["models"].items() if (m := e["metrics"].get("bits", {})).get("value")]
    if not rows:
        return None
    order = list(report["models"])
    rows.sort(key=lambda row: -row[1]["value"])
    figure = Figure(figsize=(5.2, 0.9 + 0.34 * len(rows)))
    axes = figure.add_subplot()
    for i, (name, found) in enumerate(rows):
        colour, _ = style(order.index(name))
        exact = found["protocol"].get("kind") == "exact"
        axes.errorbar(
            found["value"], i, xerr=_arms(found), fmt="o", color=colour, mfc=colour if exact else "white", capsize=3
        )
    axes.set_yticks(
        range(len(rows)), [f"{name}\n{found['protocol'].get('kind', '')}" for name, found in rows], fontsize=8
    )
    axes.set(xlabel="bits per dimension (lower is better)", ylim=(-0.6, len(rows) - 0.4))
    axes.grid(alpha=0.3, axis="x")
    return _svg(figure)


def spectra(report: Mapping[str, Any]) -> str | None:
    """Mean power at each radius of frequency: of test data, of every model's samples, and their ratio below."""
    rows = [(name, e["spectrum"]) for name, e in report["models"].items() if e.get("spectrum")]
    if not rows:
        return None
    order = list(report["models"])
    figure = Figure(figsize=(5.2, 5.2 + 0.18 * len(rows)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    real = rows[0][1]["real"]
    above.plot(real, color="black", lw=2, label="test data")
    for name, found in rows:
        colour, marker = style(order.index(name))
        how: dict[str, Any] = {"color": colour, "marker": marker, "ms": 3, "lw": 1.1}
        above.plot(found["generated"], label=name, **how)
        below.plot([g / r if r > 0 else math.nan for g, r in zip(found["generated"], real, strict=True)], **how)
    below.axhline(1, color="black", lw=1)
    above.set(yscale="log", ylabel="power")
    below.set(yscale="log", ylabel="samples / data", xlabel="radius of the frequency")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    below.legend(
        *above.get_legend_handles_labels(),
        fontsize=8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0, -0.3),
        ncols=2,
    )
    return _svg(figure)


def plane(points: Any, colour: Any, names: Sequence[str]) -> Figure:
    """Points (N, 2) by class, with the classes named in a legend, or by a real value, or in grey."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    classes = colour is not None and colour.dtype.kind in "iu"
    if classes and len(names) <= 20:
        for k, name in enumerate(names):
            chosen = points[colour == k]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=6, color=f"C{k % 10}", marker="o" if k < 10 else "x", label=name)
        figure.legend(loc="outside right center", fontsize=11, frameon=False, markerscale=3, handletextpad=0.1)
    elif colour is not None:
        shown = axes.scatter(points[:, 0], points[:, 1], s=6, c=colour, cmap="viridis")
        figure.colorbar(shown, ax=axes, shrink=0.7)
    else:
        axes.scatter(points[:, 0], points[:, 1], s=6, color="#777777")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def curves(report: Mapping[str, Any]) -> list[str]:
    """Every logged loss term against the updates, a figure for each model."""
    found = []
    for name, entry in report["models"].items():
        log = entry["training"].get("log")
        if not log:
            continue
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        terms = dict.fromkeys(k for record in log for k in record.get("terms", {}) if "gradient" not in k)
        for colour, term in zip(COLOURS, terms, strict=False):
            line = [(r["step"], r["terms"][term]) for r in log if term in r.get("terms", {})]
            axes.plot(*zip(*line, strict=True), label=term, color=colour, lw=1.2)
        axes.set(title=name, xlabel="updates")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        found.append(_svg(figure))
    return found


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
