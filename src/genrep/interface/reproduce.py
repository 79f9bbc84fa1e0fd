"""`genrep reproduce`: run an experiment that a YAML file describes, and write what it measured into results and docs.

`experiments/NAME.yaml` says `title`, `kind` (a module of `genrep.interface.experiments`; `compare` if it is left out),
`published` (sentences to stand beside the numbers), `budgets`: {small: {...}, gpu: {...}, full: {...}}, each with
`seeds`, and what its kind reads. `docs/experiments.md` shows the format of both files.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.evaluation import cost
from genrep.interface import experiments, results
from genrep.naming import choose, file_name

_TICK = 10.0  # seconds between two times that the clock is written
_MEASURED = ("models", "rows")


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
        **settings: Of training, beyond what the experiment says; only for the kind `compare`.
    """
    base = Path(root)
    said = experiments.read(name, base / "experiments")
    how = dict(said["budgets"][choose(budget, said["budgets"], f"budget of {name}")])
    module, written = experiments.kind(said["kind"]), []
    for seed in how.pop("seeds", [0]):
        folder = Path(out or base / "runs") / f"{name}-{budget}-s{seed}"
        with clock(folder) as seconds:
            found = module.run(said, how, seed=seed, folder=folder, progress=progress, **settings)
        path = base / "results" / f"{name}-{budget}-s{seed}.json"
        pictures = _keep_pictures(path.stem, found.get("pictures", {}), folder, base / "docs" / "images")
        kept = _header(name, said, budget, how, seed) | {"seconds": round(seconds())} | found | {"pictures": pictures}
        kept["notes"] = [*said["notes"], *found.get("notes", [])]
        storage.write_json(path, _with_earlier_notes(path, kept))
        written.append(path)
    results.write_page(base)
    return written


def _header(name: str, said: Mapping[str, Any], budget: str, how: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        "name": name,
        **{k: said[k] for k in ("title", "kind", "published")},
        "budget": budget,
        "budget_says": dict(how),
        "seed": seed,
        "hardware": cost.hardware(),
        "versions": {package: metadata.version(package) for package in ("genrep", "torch", "numpy")},
    }


def _with_earlier_notes(path: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """Notes that somebody added to a result stay with it as long as its numbers do."""
    earlier = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    if all(earlier.get(k) == json.loads(json.dumps(kept.get(k))) for k in _MEASURED):
        kept["notes"] += [note for note in earlier.get("notes", []) if note not in kept["notes"]]
    return kept


def _keep_pictures(stem: str, pictures: Mapping[str, str], folder: Path, images: Path) -> dict[str, str]:
    """Copies pictures beside the page; their names there, by title."""
    kept = {}
    for title, file in pictures.items():
        source = (folder / file).resolve()
        if not source.is_relative_to(folder.resolve()):
            raise ValueError(f"Expected pictures inside {folder}, got {file}.")
        images.mkdir(parents=True, exist_ok=True)
        kept[title] = f"{stem}-{file_name(title)}{source.suffix}"
        shutil.copyfile(source, images / kept[title])
    return kept


@contextmanager
def clock(folder: Path) -> Iterator[Any]:
    """Seconds spent in `folder` in all calls, in `seconds.json`; of a call that was killed all but its last seconds."""
    path, start, ended = folder / "seconds.json", time.monotonic(), threading.Event()
    before = float(json.loads(path.read_text(encoding="utf8"))) if path.exists() else 0.0

    def spent() -> float:
        return before + time.monotonic() - start

    def tick() -> None:
        while not ended.wait(_TICK):
            storage.write_json(path, spent())

    folder.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        ended.set()
        thread.join()
        storage.write_json(path, spent())
