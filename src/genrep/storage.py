"""Tensors and JSON on disk: atomic, every shared tensor once, never a pickle.

A file is safetensors with JSON in its header, so that it can be read by anything and never runs code. A file may come
from a stranger: what it claims is checked before anything is done with it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_LONGEST = 2**24  # characters of JSON in a header
_held: set[Path] = set()  # folders that this process has locked


class Stored(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # `sweep` knows this form
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written; only for who has locked the folder."""
    for left in folder.glob(".*.safetensors-*"):
        left.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, no other process gets the lock of this folder; ValueError if one has it.

    The lock is the system's, on the file `.lock`: it ends with its process, however that ends. A process may take it
    again. On Windows, where there is none, nothing is locked.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # only here: Windows has none

    folder = Path(folder).resolve()
    if folder in _held:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ".lock").is_symlink():
        raise ValueError(f"{folder / '.lock'} is a link: what it points to would be overwritten. Remove it.")
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 100, 0).decode("ascii", "replace")
            raise ValueError(
                f"Another run ({owner}) is writing to {folder}. Wait until it ends, or choose another folder."
            ) from None
        except OSError as error:
            warnings.warn(f"{folder} cannot be locked ({error}): see that no other run writes to it.", stacklevel=3)
        if not _is_at(descriptor, folder / ".lock"):  # its last owner has just removed it
            raise ValueError(f"Another run has just ended in {folder}. Look at it, or choose another folder.")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        _held.add(folder)
        try:
            yield
        finally:
            _held.discard(folder)
            (folder / ".lock").unlink(missing_ok=True)  # while it is locked, so that nobody else's is removed
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, because JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Save tensors by name, and `about` (anything JSON can hold) in the header.

    >>> import tempfile, torch
    >>> file = tempfile.mkdtemp() + "/x.safetensors"
    >>> save(file, {"w": torch.ones(2)}, {"step": 3})
    >>> load(file).about, load(file).tensors["w"].tolist()
    ({'step': 3}, [1.0, 1.0])
    """
    plain = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, {"genrep": json.dumps(about, allow_nan=False)})
        except SafetensorError as error:  # it tells what the system said in words of its own
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, f"Cannot write: {error}", str(path)) from error


def load(path: str | os.PathLike[str]) -> Stored:
    """Load a file that `save` wrote; a ValueError names a file that is damaged or not ours."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = (file.metadata() or {}).get("genrep")
            if about is None:
                raise SafetensorError("genrep did not write it")
            about = _header(about)
            return Stored({name: file.get_tensor(name) for name in file.keys()}, about)  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not a file of genrep: {error}.") from error


def _header(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST:
        raise ValueError(f"its header holds {len(text)} characters")
    about = json.loads(text, parse_constant=_refuse)
    if not isinstance(about, dict):
        raise ValueError(f"its header holds {type(about).__name__} where names should be")
    return about


def _refuse(constant: str) -> None:
    raise ValueError(f"its header holds {constant}")


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each shared tensor once (a state_dict repeats it under every name)."""
    seen: set[int] = set()
    return {name: t for name, t in module.state_dict(keep_vars=True).items() if not (id(t) in seen or seen.add(id(t)))}


def restore(module: nn.Module, tensors: Mapping[str, Tensor], source: str = "the file") -> None:
    """Copy tensors into the module in place, after checking that names, shapes and types agree and all is finite."""
    mine = state(module)
    check(tensors, mine, source)
    for name, t in tensors.items():
        mine[name].detach().copy_(t)


def check(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], source: str) -> None:
    """ValueError unless the tensors have the names, shapes and types of those in `like` and are finite."""
    if like.keys() != tensors.keys():
        missing, extra = sorted(like.keys() - tensors.keys()), sorted(tensors.keys() - like.keys())
        raise ValueError(f"{source} does not fit this model: missing {missing[:5]}, unexpected {extra[:5]}.")
    for name, t in tensors.items():
        if t.shape != like[name].shape or t.dtype != like[name].dtype:
            expected = f"{tuple(like[name].shape)} {like[name].dtype}"
            raise ValueError(f"{source}: expected {name} to be {expected}, got {tuple(t.shape)} {t.dtype}.")
    if (name := not_finite(tensors)) is not None:
        raise ValueError(f"{source}: {name} is not finite, so its weights are of no use. Take another file.")


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that holds NaN or infinity, if there is one."""
    return next((name for name, t in tensors.items() if not bool(t.isfinite().all())), None)
