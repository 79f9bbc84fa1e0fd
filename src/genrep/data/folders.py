"""Folders of images: in memory where they fit, else read and decoded on access."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genrep.contracts import Batch, DataSpec
from genrep.data.arrays import from_parts
from genrep.data.batches import Subset
from genrep.data.splits import SPLITS, Part, Splits, complete

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # others may run programs, as PostScript does
_MOST_PIXELS = 2**26  # of one image: a small file can claim to be enormous
_BANDS = {"1": 1, "L": 1, "RGB": 3, "RGBA": 4, "P": 3}  # palettes become RGB


class Format(NamedTuple):
    """What all images of a folder must share."""

    size: tuple[int, int]  # width, height
    bands: int
    bits: int

    def __str__(self) -> str:
        kind = {1: "grey", 3: "RGB", 4: "RGBA"}[self.bands] if self.bits == 8 else "black and white"
        return f"{self.size[0]} x {self.size[1]} {kind}"


class Folder:
    """Images on disk, read and decoded on access: memory holds one batch and the names of the files.

    y: None or (N,) int64 labels. Raises ValueError on access for a file that is broken or has changed its format.
    """

    def __init__(self, files: Sequence[Path], y: Tensor | None, form: Format, spec: DataSpec) -> None:
        self.files, self.y, self.form, self.spec = [str(file) for file in files], y, form, spec

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Batch:
        index = index.cpu()
        x = torch.from_numpy(decode_all([self.files[i] for i in index.tolist()], self.form))
        assert self.spec.levels is not None
        if self.spec.levels < 256 and int(x.max()) >= self.spec.levels:
            raise ValueError(f"Expected levels in [0, {self.spec.levels}), got {int(x.max())} in one of these images.")
        return Batch(x, None if self.y is None else self.y[index])


def read_folder(path: Path, *, levels: int | None, seed: int, memory_limit: int) -> Splits:
    """Splits from images in a folder; sub-folders are classes, or train, test and validation of such.

    Images of more than `memory_limit` bytes altogether are left on disk and read on access.
    """
    notes: list[str] = []
    found = {split: list_images(folder, notes) for split, folder in _split_folders(path, notes).items()}
    class_names = {tuple(names) for _, _, names in found.values()}
    if len(class_names) > 1:
        raise ValueError(
            f"The splits in {path} have different classes: {sorted(class_names)}. Give each the same sub-folders."
        )
    about: dict[str, Any] = {"source": str(path), "inferred": notes}
    if names := found["train"][2]:
        about["class_names"] = names
        notes.append(f"classes from sub-folders: {len(names)}")
    files = [file for images, _, _ in found.values() for file in images]
    form = common_format(files)
    notes.append(f"{len(files)} images, {form}")
    notes.append(f"levels {2**form.bits}, from {form.bits} bits" if levels is None else f"levels {levels}, as given")
    levels = 1 << form.bits if levels is None else levels
    if not 2 <= levels <= 256:
        raise ValueError(f"Expected 2 to 256 levels for images, got {levels}.")
    size = len(files) * form.bands * form.size[0] * form.size[1]
    if size > memory_limit:
        notes.append(
            f"read on access: {size / 2**30:.1f} GiB of pixels, memory_limit is {memory_limit / 2**30:.1f} GiB"
        )
        return _streamed(path.name, found, form, levels, seed, about)
    parts = {split: Part(decode_all(images, form), y) for split, (images, y, _) in found.items()}
    return from_parts(path.name, parts, levels=levels, layout="NCHW", seed=seed, about=about)


def _streamed(
    name: str,
    found: dict[str, tuple[list[Path], np.ndarray | None, list[str]]],
    form: Format,
    levels: int,
    seed: int,
    about: dict[str, Any],
) -> Splits:
    """Views of one Folder."""
    starts = np.cumsum([0, *(len(images) for images, _, _ in found.values())])
    numbered = {
        split: Part(np.arange(starts[i], starts[i + 1]), y) for i, (split, (_, y, _)) in enumerate(found.items())
    }
    parts, rules = complete(numbered, seed)
    classes = len(about.get("class_names", ()))
    spec = DataSpec((form.bands, form.size[1], form.size[0]), levels, classes)
    ys = [y for _, y, _ in found.values() if y is not None]
    everything = Folder(
        [file for images, _, _ in found.values() for file in images],
        torch.from_numpy(np.concatenate(ys)) if ys else None,
        form,
        spec,
    )
    about |= {"split": rules, "counts": {split: len(parts[split].x) for split in SPLITS}}
    if classes:
        about["class_counts"] = {
            s: np.bincount(p.y, minlength=classes).tolist() for s, p in parts.items() if p.y is not None
        }
    views = {split: Subset(everything, torch.from_numpy(part.x)) for split, part in parts.items()}
    return Splits(name, train=views["train"], validation=views["validation"], test=views["test"], about=about)


def _split_folders(path: Path, notes: list[str]) -> dict[str, Path]:
    """The folders of the splits; the folder itself is train unless it has sub-folders train and test."""
    folders = {entry.name: entry for entry in path.iterdir() if entry.is_dir()}
    if not {"train", "test"} <= folders.keys():
        return {"train": path}
    names = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
    splits = {names[name]: folder for name, folder in folders.items() if name in names}
    if len(splits) < len(folders):
        raise ValueError(
            f"{path} has folders train and test; beside them only validation may stand, got {sorted(folders)}."
        )
    notes.append(f"splits from sub-folders: {', '.join(sorted(splits))}")
    return {split: splits[split] for split in SPLITS if split in splits}


def list_images(path: Path, notes: list[str]) -> tuple[list[Path], np.ndarray | None, list[str]]:
    """Images in order of their names, their labels and the names of the classes; hidden files do not count."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    images, other = _sorted_out(entries)
    if folders and images:
        raise ValueError(f"{path} holds both images ({images[0].name}) and folders ({folders[0].name}): keep one kind.")
    inside = {folder: _sorted_out(sorted(folder.iterdir())) for folder in folders}
    for folder, (mine, _) in inside.items():
        if nested := [entry.name for entry in folder.iterdir() if entry.is_dir()]:
            raise ValueError(f"{folder} holds a folder ({nested[0]}): a class is a folder with images only.")
        if not mine:
            raise ValueError(
                f"There are no images in {folder}: a class needs some. Images end in {', '.join(SUFFIXES)}."
            )
    files = [*images, *(file for mine, _ in inside.values() for file in mine)]
    if not files:
        raise ValueError(f"There are no images in {path}. Images end in {', '.join(SUFFIXES)}.")
    if other := [*other, *(file for _, rest in inside.values() for file in rest)]:
        notes.append(f"{len(other)} files left out, not named as images, such as {other[0].name}")
    labels = np.repeat(np.arange(len(folders)), [len(mine) for mine, _ in inside.values()]) if folders else None
    return files, labels, [folder.name for folder in folders]


def _sorted_out(entries: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files named as images, and the others that are not hidden."""
    files = [entry for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    return [f for f in files if f.suffix.lower() in SUFFIXES], [f for f in files if f.suffix.lower() not in SUFFIXES]


def common_format(files: Sequence[Path]) -> Format:
    """The format of all files, from their headers; ValueError names two that differ."""
    first = None
    for file, form in zip(files, map(read_format, files), strict=True):
        first = first or form
        if form != first:
            raise ValueError(
                f"All images must have one size and kind: {files[0]} is {first}, {file} is {form}. "
                "Resize or convert them first, for example with PIL: Image.open(f).convert('RGB').resize((64, 64))."
            )
    assert first is not None
    return first


def _open(file: Path | str | IO[bytes]) -> Image.Image:
    """An image whose header is read, not its pixels."""
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file} is too large: {error}") from error
    except Exception as error:  # decoders raise what they like on hostile bytes
        raise ValueError(f"{file} is broken or not an image: {error}. Repair it or take it out.") from error
    if image.width * image.height > _MOST_PIXELS:
        image.close()
        raise ValueError(f"{file} is too large: {image.width} x {image.height}, more than {_MOST_PIXELS} pixels.")
    if image.mode not in _BANDS:
        image.close()
        raise ValueError(f"{file} has mode {image.mode}: expected one of {', '.join(_BANDS)}. Convert it first.")
    return image


def _format(image: Image.Image) -> Format:
    return Format(image.size, _BANDS[image.mode], 1 if image.mode == "1" else 8)


def read_format(file: Path | str | IO[bytes]) -> Format:
    """Size and kind of an image, from its header."""
    with _open(file) as image:
        return _format(image)


def decode_all(files: Sequence[Path | str | IO[bytes]], form: Format) -> np.ndarray:
    """Pixels (N, C, H, W) uint8 of files that must all have this format."""
    x = np.empty((len(files), form.bands, form.size[1], form.size[0]), np.uint8)

    def fill(i: int) -> None:
        x[i] = decode(files[i], form)

    with ThreadPoolExecutor() as pool:  # decoders release the interpreter
        for _ in pool.map(fill, range(len(files))):
            pass
    return x


def decode(file: Path | str | IO[bytes], form: Format) -> np.ndarray:
    """Pixels (C, H, W) of one file; ValueError names it if it is broken."""
    with _open(file) as image:
        if (found := _format(image)) != form:
            raise ValueError(f"Expected {form} as the other images, {file} is {found}.")
        try:
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        except Exception as error:  # as in _open
            raise ValueError(f"{file} is broken: {error}. Repair it or take it out.") from error
    return pixels.reshape(form.size[1], form.size[0], form.bands).transpose(2, 0, 1)
