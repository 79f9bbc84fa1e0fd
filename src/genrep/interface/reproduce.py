"""`genrep reproduce`: run an experiment that a YAML file describes, and write what it measured into results and docs.

An experiment is a comparison with a name. `experiments/NAME.yaml` says title, data, models (names),
`published` (sentences to stand beside the numbers) and `budgets`: {budget: {seconds or steps, samples, examples,
seeds}}.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from genrep import storage
from genrep.evaluation import report
from genrep.interface.compare import compare
from genrep.naming import choose

_KEYS = ("title", "data", "models", "published", "budgets")
_HOW = ("seconds", "steps", "samples", "examples", "seeds")


def experiments(folder: Path) -> list[str]:
    """Names of the experiments in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read(name: str, folder: Path) -> dict[str, Any]:
    """An experiment by name; a ValueError says what its file lacks."""
    path = folder / f"{choose(name, experiments(folder), 'experiment')}.yaml"
    said = yaml.safe_load(path.read_text(encoding="utf8"))
    missing = [k for k in _KEYS if not isinstance(said, dict) or k not in said]
    if missing:
        raise ValueError(f"{path} must say {', '.join(_KEYS)}; it lacks {', '.join(missing)}.")
    for budget, how in said["budgets"].items():
        for key in how:
            choose(key, _HOW, f"entry of budget {budget} in {path.name}")
    return said


def reproduce(
    name: str,
    *,
    budget: str = "small",
    root: str | os.PathLike[str] = ".",
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> list[Path]:
    """Run an experiment at a budget, seed by seed, and write `results/NAME-BUDGET-sSEED.json` and `docs/results.md`.

    A run that was cut off goes on where it stopped when it is called again.

    Args:
        name: Of a file in `experiments/`.
        budget: Which of its budgets.
        root: The folder that holds experiments/, results/ and docs/.
        out: Where runs go; None: `runs/` in the root.
        progress: Show progress bars on a terminal.
        **settings: Of training, beyond what the experiment says.
    """
    base = Path(root)
    said = read(name, base / "experiments")
    how = dict(said["budgets"][choose(budget, said["budgets"], f"budget of {name}")])
    written = []
    for seed in how.pop("seeds", [0]):
        folder = Path(out or base / "runs") / f"{name}-{budget}-s{seed}"
        start = time.time()
        found = compare(said["models"], said["data"], out=folder, seed=seed, progress=progress, **how, **settings)
        path = base / "results" / f"{name}-{budget}-s{seed}.json"
        storage.write_json(path, _summary(name, said, budget, seed, found, time.time() - start))
        _keep_pictures(path.stem, found, folder, base / "docs" / "images")
        written.append(path)
    write_page(base)
    return written


def _summary(
    name: str, said: Mapping[str, Any], budget: str, seed: int, found: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What is kept of a report: everything but logs and jackknife replicates."""
    models = {}
    for model, entry in found["models"].items():
        metrics = {k: {i: v for i, v in m.items() if i != "replicates"} for k, m in entry["metrics"].items()}
        training = {k: v for k, v in entry["training"].items() if k != "log"}
        models[model] = {**entry, "metrics": metrics, "training": training}
    kept = {"name": name, "title": said["title"], "published": said["published"], "budget": budget, "seed": seed}
    return {**kept, "seconds": round(seconds), "protocol": found["protocol"], "null": found["null"], "models": models}


def _keep_pictures(stem: str, found: Mapping[str, Any], folder: Path, images: Path) -> None:
    images.mkdir(parents=True, exist_ok=True)
    for model, entry in found["models"].items():
        file = entry["pictures"].get("samples")
        if file is not None:
            shutil.copyfile(folder / file, images / f"{stem}-{model}.png")


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
        "`full` as published.",
    ]
    for path in sorted((root / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf8"))
        section = _section(path.stem, found, root) if "models" in found else _table(found)
        lines += ["", *section]
    if benchmarks := sorted((root / "results").glob("*.jsonl")):
        lines += ["", *_benchmarks(benchmarks)]
    return "\n".join(lines) + "\n"


def _section(stem: str, found: Mapping[str, Any], root: Path) -> list[str]:
    protocol, null = found["protocol"], found["null"]
    lines = [
        f"## {found['title']} ({found['budget']}, seed {found['seed']})",
        "",
        f"`genrep reproduce {found['name']} --budget {found['budget']}`: {protocol['budget']} for each model, "
        f"{found['seconds'] / 60:.0f} minutes in all on {protocol['hardware']}, torch {protocol['versions']['torch']}.",
        "",
        report.markdown(found),
        "",
        f"Features: {protocol['features']} {protocol['features_hash']}{_about(protocol['features_about'])}; "
        f"{protocol['samples']} samples, at most {protocol['examples']} of {protocol['counts']['test']} test examples. "
        f"{protocol['split']} Null check: half of the test data is at {null['value']:.3f} [{null['low']:.3f}, "
        f"{null['high']:.3f}] from the other.",
        "",
        *[f"Published: {sentence}" for sentence in found["published"]],
        *[f"\nNote: {sentence}" for sentence in found.get("notes", [])],
    ]
    shown = [m for m in found["models"] if (root / "docs" / "images" / f"{stem}-{m}.png").exists()]
    if shown:
        cells = [f"![{m}](images/{stem}-{m}.png)" for m in shown]
        lines += ["", f"| {' | '.join(shown)} |", f"|{'---|' * len(shown)}", f"| {' | '.join(cells)} |"]
    return lines


def _table(found: Mapping[str, Any]) -> list[str]:
    """A result that is a table of its own: title, protocol, columns, rows, notes."""
    lines = [found["columns"], ["---"] * len(found["columns"]), *found["rows"]]
    cells = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return [f"## {found['title']}", "", found["protocol"], "", *cells, "", *found["notes"]]


def _benchmarks(paths: Sequence[Path]) -> list[str]:
    """What `python -m benchmarks NAME > results/NAME.jsonl` printed: ratios against their targets."""
    lines = [
        "## Benchmarks",
        "",
        "Both sides alternate in one run, warmed up, medians. A ratio above one means that genrep is faster.",
        "",
        "| what | genrep | rival | unit | ratio | target |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths:
        for line in path.read_text(encoding="utf8").splitlines():
            found = json.loads(line)
            ours, rival, ratio = (f"{found[key]:.4g}" for key in ("ours", "rival", "ratio"))
            target = "" if found.get("target") is None else f"{found['target']:g}"
            lines.append(f"| {found['name']} | {ours} | {rival} | {found['unit']} | {ratio} | {target} |")
    return lines


def _about(features: Mapping[str, Any]) -> str:
    accuracy = features.get("test_accuracy")
    return "" if accuracy is None else f" (test accuracy {accuracy:.3f})"
