"""The folder of a run: new ones, those that failed, and how far a run has come."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genrep import storage
from genrep.training import checkpoint, ranks


def free(folder: Path) -> Path:
    """The folder, if nothing is in it."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file: choose another --out, a folder.")
    if folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise ValueError(
            f"{folder} exists and is not empty: choose another --out, or continue it with `genrep resume`."
        )
    return folder


@contextmanager
def cleared_on_failure(folder: Path | None) -> Iterator[None]:
    """Whatever goes wrong inside before a checkpoint is written, no folder is left that was not there before.

    The folder is locked first: one that another run has taken is not cleared. Of several processes rank 0 does it.
    """
    if folder is None or not ranks.first():
        yield
        return
    made = _first_missing(folder)
    with storage.locked(folder):
        free(folder)
        with _clearing(folder, made):
            yield


@contextmanager
def _clearing(folder: Path, made: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not has_checkpoint(folder):
            _remove(folder if made is None else made, keep=made is None)
            if isinstance(error, FloatingPointError):
                error.add_note("There was no checkpoint yet, so nothing is kept.")
        raise


def _first_missing(folder: Path) -> Path | None:
    """The highest folder on the way to `folder` that does not exist yet; None if all do."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    return missing[-1] if missing else None


def _remove(folder: Path, *, keep: bool) -> None:
    for inside in folder.iterdir() if keep else [folder]:
        if inside.is_dir():
            shutil.rmtree(inside)
        else:
            inside.unlink(missing_ok=True)


def stage_folder(folder: Path, stage: int, stages: int) -> Path:
    """Where a stage keeps its log and checkpoints: the run folder itself, if there is only one."""
    return folder if stages == 1 else folder / f"stage{stage}"


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return any(folder.glob("checkpoints/*.safetensors")) or any(folder.glob("stage*/checkpoints/*.safetensors"))


def position(folder: Path) -> tuple[int, dict[str, Any]]:
    """The stage that a run has reached, and the header of its newest checkpoint."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}.")
    stages = [int(p.parent.name.removeprefix("stage")) for p in folder.glob("stage*/checkpoints")]
    reached = [s for s in stages if any((folder / f"stage{s}" / "checkpoints").glob("*.safetensors"))]
    place = folder / f"stage{max(reached)}" if reached else folder
    about = checkpoint.newest(place / "checkpoints")[1].about
    return about["stage"], about
