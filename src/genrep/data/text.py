"""Text as data: windows of consecutive characters, each a vector of categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from genrep.data.splits import Part, Splits, assemble

WINDOW = 64  # characters of an example, unless shape= says otherwise
_HELD_OUT = 20  # validation and test are a twentieth of the text each, its end
_MOST_CHARACTERS = 65536  # that differ


def read_text(path: Path, *, seed: int, memory_limit: int) -> Splits:
    """Splits of a text file in UTF-8. ValueError for one that is too large, too short, or not text."""
    if (size := path.stat().st_size) > memory_limit / 8:
        raise ValueError(
            f"{path} has {size / 2**30:.1f} GiB, too much for memory_limit={memory_limit / 2**30:.1f} GiB."
        )
    try:
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}.") from error
    parts, characters, rules = text_parts(text, str(path))
    about = {"source": str(path), "characters": characters, "split": rules}
    about["inferred"] = [f"levels {len(characters)}, the characters of the text; {WINDOW} in an example"]
    return assemble(path.name, parts, levels=len(characters), seed=seed, about=about)


def text_parts(text: str, name: str, window: int = WINDOW) -> tuple[dict[str, Part], list[str], list[str]]:
    """Windows (N, L) of characters numbered in the order of their code points, those characters, and how it was split.

    The text is cut, in order, into nine tenths for training, a twentieth for validation and the last one for testing;
    what does not fill a window is left out.

    >>> parts, characters, _ = text_parts("abracadabra" * 40, "a text", window=4)
    >>> "".join(characters), parts["train"].x[0].tolist(), len(parts["test"].x)
    ('abcdr', [0, 1, 4, 0], 5)
    """
    if len(text) < _HELD_OUT * window:
        raise ValueError(f"Expected at least {_HELD_OUT * window} characters in {name}, got {len(text)}.")
    characters = sorted(set(text))
    if not 2 <= len(characters) <= _MOST_CHARACTERS:
        raise ValueError(f"Expected 2 to {_MOST_CHARACTERS} different characters in {name}, got {len(characters)}.")
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    codes = np.searchsorted(np.array([ord(c) for c in characters], np.uint32), points)
    codes = codes.astype(np.uint8 if len(characters) <= 256 else np.int32)
    held = len(codes) // _HELD_OUT
    pieces = {"train": codes[: -2 * held], "validation": codes[-2 * held : -held], "test": codes[-held:]}
    rules = ["train, validation, test: the first nine tenths of the text, the next twentieth, the last."]
    return {split: Part(windows(piece, window)) for split, piece in pieces.items()}, characters, rules


def windows(codes: np.ndarray, length: int) -> np.ndarray:
    """A sequence cut into (N, length), the rest left out."""
    n = len(codes) // length
    return codes[: n * length].reshape(n, length)


def as_text(x: Tensor, characters: list[str]) -> list[str]:
    """Examples (N, L) of levels as strings."""
    return ["".join([characters[level] for level in row]) for row in x.tolist()]


def from_text(text: str, characters: list[str]) -> list[int]:
    """A string as levels; ValueError for characters that the data do not have.

    >>> from_text("cab", ["a", "b", "c"])
    [2, 0, 1]
    """
    if unknown := sorted(set(text) - set(characters)):
        raise ValueError(f"The data have no character {unknown[0]!r}: they have {''.join(characters)!r}.")
    return [characters.index(c) for c in text]
