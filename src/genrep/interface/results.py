"""`docs/results.md`, from the files in `results/`: what was measured beside what is published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.evaluation import report

_ACROSS = 5  # pictures beside each other


def write_page(root: Path) -> Path:
    """`docs/results.md`, from all of `results/*.json`."""
    page = root / "docs" / "results.md"
    storage.write_text(page, render(root))
    return page


def render(root: Path) -> str:
    """The text of `docs/results.md`: experiments and tables (`*.json`), then benchmarks (`*.jsonl`)."""
    lines = [
        "# Results",
        "",
        "Written by `genrep reproduce` from the files in `results/`; do not edit. ± is a standard error, [ ] a 95 %",
        "interval. Budgets: `small` is two CPU cores and equal cuts for all rows, `gpu` at most 20 minutes on one GPU,",
        "`full` as published. [experiments.md](experiments.md) says how an experiment and its result are written down.",
    ]
    for path in sorted((root / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf8"))
        lines += ["", *(_experiment(found) if "name" in found else _table(found))]
    if benchmarks := sorted((root / "results").glob("*.jsonl")):
        lines += ["", *_benchmarks(benchmarks)]
    return "\n".join(lines) + "\n"


def _experiment(found: Mapping[str, Any]) -> list[str]:
    """A result that `genrep reproduce` wrote."""
    comparison = "models" in found
    cut = f"{found['protocol']['budget']} for each model, " if comparison else ""
    lines = [
        f"## {found['title']} ({found['budget']}, seed {found['seed']})",
        "",
        f"`genrep reproduce {found['name']} --budget {found['budget']}`: {cut}"
        f"{max(1, round(found['seconds'] / 60))} minutes in all on {found['hardware']}, "
        f"torch {found['versions']['torch']}, genrep {found['versions']['genrep']}.",
        "",
        *(_comparison(found) if comparison else [*_cells(found), "", found["protocol"]]),
    ]
    lines += [f"\nPublished: {sentence}" for sentence in found["published"]]
    lines += [f"\n{_order(order)}" for order in found.get("orders", [])]
    lines += [f"\nNote: {sentence}" for sentence in found.get("notes", [])]
    return lines + _pictures(found.get("pictures", {}))


def _comparison(found: Mapping[str, Any]) -> list[str]:
    protocol, null = found["protocol"], found["null"]
    walk = ""
    if "evaluations" in protocol:
        walk = f"chains walked in at most {protocol['evaluations']} evaluations per sample, bounds over a chain "
        walk += f"estimated from {protocol['bound_evaluations']} per example; "
    return [
        report.markdown(found),
        "",
        f"Features: {protocol['features']} {protocol['features_hash']}{_about(protocol['features_about'])}; "
        f"{protocol['samples']} samples, at most {protocol['examples']} of {protocol['counts']['test']} test examples; "
        f"{walk}data {protocol['data']} {protocol['data_hash']}. {protocol['split']} "
        f"Null check: half of the test data is at {null['value']:.3f} [{null['low']:.3f}, {null['high']:.3f}] "
        "from the other.",
    ]


def _order(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return (
        f"Order: {found['low']} below {found['high']} in {found['metric']} {found['outcome']}: "
        f"difference {found['difference']:.3g} [{low:.3g}, {high:.3g}], paired over the same test examples."
    )


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    titles, lines = list(pictures), list[str]()
    for i in range(0, len(titles), _ACROSS):
        part = titles[i : i + _ACROSS]
        cells = [f"![{title}](images/{pictures[title]})" for title in part]
        lines += ["", f"| {' | '.join(part)} |", f"|{'---|' * len(part)}", f"| {' | '.join(cells)} |"]
    return lines


def _table(found: Mapping[str, Any]) -> list[str]:
    """A result that is a table of its own: title, protocol, columns, rows, notes."""
    return [f"## {found['title']}", "", found["protocol"], "", *_cells(found), "", *found["notes"]]


def _cells(found: Mapping[str, Any]) -> list[str]:
    lines = [found["columns"], ["---"] * len(found["columns"]), *found["rows"]]
    return ["| " + " | ".join(_text(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def _text(cell: Any) -> str:
    return "–" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _benchmarks(paths: Sequence[Path]) -> list[str]:
    """What `python -m benchmarks --record NAME` wrote: ratios against their targets."""
    lines = [
        "## Benchmarks",
        "",
        "Both sides alternate in one run, warmed up, medians. A ratio above one means that genrep does better,",
        "whichever way the unit runs; bold misses its target. Where the rival is less accurate there is no target.",
        "[What was tried where a target is missed](../benchmarks/README.md).",
    ]
    for path in paths:
        rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
        on = ", ".join(dict.fromkeys(row["hardware"] for row in rows))
        lines += ["", f"`python -m benchmarks {path.stem}`, on {on}:", ""]
        lines += ["| what | genrep | rival | unit | ratio | target |", "|---|---|---|---|---|---|"]
        lines += [_compared(row) for row in rows]
    return lines


def misses(row: Mapping[str, Any]) -> bool:
    """Whether a comparison of `python -m benchmarks` stays below its target; without a target it cannot."""
    return row["target"] is not None and row["ratio"] < row["target"]


def _compared(row: Mapping[str, Any]) -> str:
    ours, rival, ratio = (f"{row[key]:.4g}" for key in ("ours", "rival", "ratio"))
    target = "" if row["target"] is None else f"{row['target']:g}"
    ratio = f"**{ratio}**" if misses(row) else ratio
    return f"| {row['name']} | {ours} | {rival} | {row['unit']} | {ratio} | {target} |"


def _about(features: Mapping[str, Any]) -> str:
    accuracy = features.get("test_accuracy")
    return "" if accuracy is None else f" (test accuracy {accuracy:.3f})"
