"""Where the files of named data sets come from: the folder GENREP_DATA, else their official home; by checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """One file of a data set."""

    path: str  # below GENREP_DATA
    md5: str
    url: str | None = None  # an official home of exactly these bytes


def fetch(file: File) -> Path:
    """The file on this machine, verified; downloaded to the user's cache if it is nowhere else.

    Raises ValueError if its bytes differ from those expected, or if it is neither here nor to be had.
    """
    folder = os.environ.get("GENREP_DATA")
    if folder and (path := Path(folder) / file.path).is_file():
        if (found := md5(path)) != file.md5:
            raise ValueError(f"{path} is not the file expected: md5 {found} instead of {file.md5}. Replace it.")
        return path
    where = f"in GENREP_DATA={folder}" if folder else "and GENREP_DATA is not set"
    expected = f"a folder that holds {file.path} (md5 {file.md5})"
    if file.url is None:
        raise ValueError(
            f"{file.path} is not {where}, and it has no home to download it from: set GENREP_DATA to {expected}."
        )
    return _download(file, file.url, f"Set GENREP_DATA to {expected}.")


def md5(path: Path) -> str:
    """Checksum of a file's bytes; it guards against damage, not against malice."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(file: File, url: str, otherwise: str) -> Path:
    import pooch  # only here: it takes longer to import than most sets to read

    name, folder = Path(file.path), pooch.os_cache("genrep")
    try:
        return Path(pooch.retrieve(url, f"md5:{file.md5}", name.name, folder / name.parent))
    except OSError as error:
        raise ValueError(f"Cannot download {url}: {error}. {otherwise}") from error
