"""Tensors and JSON on disk: atomic, every shared tensor once, never a pickle.

A file is safetensors with JSON in its header, so that it can be read by anything and never runs code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class Stored(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


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
        save_file(plain, temporary, {"genrep": json.dumps(about, allow_nan=False)})


def load(path: str | os.PathLike[str]) -> Stored:
    """Load a file that `save` wrote; a ValueError names a file that is damaged or not ours."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = (file.metadata() or {}).get("genrep")
            if about is None:
                raise ValueError(f"{path} is a safetensors file, but genrep did not write it.")
            return Stored({name: file.get_tensor(name) for name in file.keys()}, json.loads(about))  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}.") from error


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each shared tensor once (a state_dict repeats it under every name)."""
    seen: set[int] = set()
    return {name: t for name, t in module.state_dict(keep_vars=True).items() if not (id(t) in seen or seen.add(id(t)))}


def restore(module: nn.Module, tensors: Mapping[str, Tensor], source: str = "the file") -> None:
    """Copy tensors into the module in place, after checking that names, shapes and types agree."""
    mine = state(module)
    if mine.keys() != tensors.keys():
        missing, extra = sorted(mine.keys() - tensors.keys()), sorted(tensors.keys() - mine.keys())
        raise ValueError(f"{source} does not fit this model: missing {missing[:5]}, unexpected {extra[:5]}.")
    for name, t in tensors.items():
        if t.shape != mine[name].shape or t.dtype != mine[name].dtype:
            expected = f"{tuple(mine[name].shape)} {mine[name].dtype}"
            raise ValueError(f"{source}: expected {name} to be {expected}, got {tuple(t.shape)} {t.dtype}.")
    for name, t in tensors.items():
        mine[name].detach().copy_(t)
