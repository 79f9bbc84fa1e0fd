"""How the files of the named data sets are read; each reader gives a `Raw`."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from genrep.data import shapes as drawn
from genrep.data.shower_model import CONDITIONS
from genrep.data.showers import bundled
from genrep.data.splits import Part, hold_out, take
from genrep.data.text import text_parts

_FIXED = 0  # the seed of test sets that we had to make: they are the same for everyone


class Raw(NamedTuple):
    """A set as its source gives it, before validation is held out."""

    parts: Mapping[str, Part]
    split: Sequence[str]  # sentences: what the source splits, and how
    levels: int | None = 256
    class_names: Sequence[str] = ()
    columns: Sequence[str] = ()  # names of the columns of a table
    choices: Mapping[str, Mapping[str, np.ndarray]] = {}  # by name and split: what label= and condition= may name
    choice_names: Mapping[str, Sequence[str]] = {}  # class names of those choices
    notes: Sequence[str] = ()
    characters: Sequence[str] = ()  # of text, by level
    conditions: Sequence[str] = ()  # names of the columns of y, where y holds conditions


def digits(paths: Sequence[Path], seed: int) -> Raw:
    from sklearn.datasets import load_digits  # only here: it imports half of SciPy

    x, y = load_digits(return_X_y=True)
    part = Part(x.astype(np.uint8).reshape(-1, 1, 8, 8), np.asarray(y))
    kept, held = hold_out(1797, 360, _FIXED, part.y)
    train = take(part, kept)
    kept, validation = hold_out(len(kept), 240, seed, train.y)
    split = (
        "test: 360 of 1797, held out at random in proportion to the classes, the same for every seed.",
        f"validation: 240 of the other 1437, held out at random in proportion to the classes, seed {seed}.",
    )
    parts = {"train": take(train, kept), "validation": take(train, validation), "test": take(part, held)}
    return Raw(parts, split, levels=17, class_names=_DIGITS)


_DIGITS = tuple("0123456789")


def shapes(paths: Sequence[Path], seed: int) -> Raw:
    parts, choices = {}, {name: {} for name in drawn.FACTORS}
    for split, index in zip(("train", "test"), drawn.combinations(), strict=True):
        values = drawn.factors(index)
        parts[split] = Part(drawn.draw(values), values[:, 0])
        for name, column in zip(drawn.FACTORS, values.T, strict=True):
            choices[name][split] = column
    choice_names = {k: tuple(map(str, range(n))) for k, n in drawn.FACTORS.items()} | {"shape": drawn.SHAPES}
    rule = "train: 10000 and test: 2000 of the 36864 combinations, without replacement, the same for every seed."
    return Raw(parts, (rule,), class_names=drawn.SHAPES, choices=choices, choice_names=choice_names)


def showers(paths: Sequence[Path], seed: int) -> Raw:
    rule = "train: 8000 and test: 2000 showers of particles drawn alike, the same for every seed."
    notes = ("x is log(1 + photoelectrons); a parametrised simulator, not Geant4",)
    return Raw(bundled(), (rule,), levels=None, notes=notes, conditions=CONDITIONS)


def mnist(paths: Sequence[Path], seed: int) -> Raw:
    return Raw(_idx_parts(paths), ("test: the official 10000.",), class_names=_DIGITS)


def fashion_mnist(paths: Sequence[Path], seed: int) -> Raw:
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    return Raw(_idx_parts(paths), ("test: the official 10000.",), class_names=names)


def _idx_parts(paths: Sequence[Path]) -> dict[str, Part]:
    x, y, x_test, y_test = map(_read_idx, paths)
    return {"train": Part(x[:, None], y), "test": Part(x_test[:, None], y_test)}


def _read_idx(path: Path) -> np.ndarray:
    """The IDX format of MNIST: 0, 0, type, number of dimensions, sizes (big-endian uint32), bytes."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(tuple(int(n) for n in shape))


def labelled_images(paths: Sequence[Path], seed: int) -> Raw:
    """An `.npz` with train and test, images and labels."""
    z = _npz(paths[0])
    parts = {s: Part(_channels_first(z[f"{s}_images"]), z[f"{s}_labels"]) for s in ("train", "test")}
    names = z["class_names"].tolist() if "class_names" in z else _DIGITS
    return Raw(parts, ("test: that of the source.",), class_names=names)


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _channels_first(x: np.ndarray) -> np.ndarray:
    return x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def malaria(paths: Sequence[Path], seed: int) -> Raw:
    """Validation is held out by patient, as the test set is: cells of one patient look alike."""
    raw = labelled_images(paths, seed)
    names = _npz(paths[0])["train_names"]
    patient = np.array([re.findall(r"^C\d+", name)[0] for name in names])
    patients = np.unique(patient)
    _, held = hold_out(len(patients), round(len(patients) / 10), seed)
    mine = np.isin(patient, patients[held])
    train = raw.parts["train"]
    parts = {"train": take(train, ~mine), "validation": take(train, mine), "test": raw.parts["test"]}
    split = (
        "test: 40 patients of the source's copy, none of them in train.",
        f"validation: {len(held)} of the other {len(patients)} patients, drawn at random, seed {seed}.",
    )
    return raw._replace(parts=parts, split=split)


def omniglot(paths: Sequence[Path], seed: int) -> Raw:
    """Train and test have different alphabets, so no label is the default."""
    z = _npz(paths[0])
    parts = {s: Part(_channels_first(z[f"{s}_images"])) for s in ("train", "test")}
    keys = {"alphabet": "alphabet", "character": "labels"}
    names = {c: [n for s in parts for n in z[f"{s}_{c}_names"].tolist()] for c in keys}
    first = {c: {"train": 0, "test": len(z[f"train_{c}_names"])} for c in keys}
    choices = {c: {s: z[f"{s}_{key}"].astype(np.int64) + first[c][s] for s in parts} for c, key in keys.items()}
    return Raw(
        parts,
        ("train: from the official background set, 30 alphabets. test: the official evaluation set, 20 others.",),
        choices=choices,
        choice_names=names,
        notes=("ink is 255 on 0", "unlabelled unless label=alphabet or character: no class of test occurs in train"),
    )


def omniglot_drawers(paths: Sequence[Path], seed: int) -> Raw:
    """All 50 alphabets, which are the classes; of the 20 drawers of each character the last four are the test set."""
    z = _npz(paths[0])
    sets = ("train", "test")
    x, drawer = _channels_first(np.concatenate([z[f"{s}_images"] for s in sets])), [z[f"{s}_drawer"] for s in sets]
    alphabets = len(z["train_alphabet_names"])
    y = np.concatenate([z["train_alphabet"].astype(np.int64), z["test_alphabet"].astype(np.int64) + alphabets])
    test = np.isin(np.concatenate(drawer), np.unique(drawer[0])[-4:])
    names = [name for s in sets for name in z[f"{s}_alphabet_names"].tolist()]
    return Raw(
        {"train": Part(x[~test], y[~test]), "test": Part(x[test], y[test])},
        ("train: the first 16 drawers of each character. test: the last 4.",),
        class_names=names,
        notes=("ink is 255 on 0",),
    )


def cifar10(paths: Sequence[Path], seed: int) -> Raw:
    z = _npz(paths[0])
    parts = {s: Part(decode_jpeg(z[f"{s}_jpeg"], z[f"{s}_offsets"]), z[f"{s}_labels"]) for s in ("train", "test")}
    notes = ("decoded from JPEG of quality 75: bits per dimension do not compare with those of the original pixels",)
    return Raw(parts, ("test: the official 10000.",), class_names=z["class_names"].tolist(), notes=notes)


def cifar10_lossless(paths: Sequence[Path], seed: int) -> Raw:
    z = _npz(paths[0])
    both = Part(_channels_first(z["train_images"]), z["train_labels"])
    parts = {"train": take(both, np.arange(3500)), "test": take(both, np.arange(3500, 4000))}
    split = ("test: the last 500 of the first 4000 official training images; train: from the 3500 before.",)
    notes = ("original pixels",)
    return Raw(parts, split, class_names=z["class_names"].tolist(), notes=notes)


def decode_jpeg(jpeg: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) from JPEG files in one array of bytes; file i is [offsets[i], offsets[i + 1])."""
    blob = jpeg.tobytes()
    images = (Image.open(io.BytesIO(blob[a:b])) for a, b in zip(offsets[:-1], offsets[1:], strict=True))
    return _channels_first(np.stack([np.asarray(image) for image in images]))


def svhn_sample(paths: Sequence[Path], seed: int) -> Raw:
    z = _npz(paths[0])
    both = Part(_channels_first(z["images"]), z["labels"])
    kept, held = hold_out(len(both.x), 13, _FIXED, both.y)
    split = ("test: 13 of 130, held out at random, the same for every seed.",)
    notes = ("130 images: for trying things out only",)
    return Raw({"train": take(both, kept), "test": take(both, held)}, split, class_names=_DIGITS, notes=notes)


_HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Bald", "Wearing_Hat")


def _one_of(present: np.ndarray) -> np.ndarray:
    """Which of the columns (N, K) is 1, (N,) int64; -1 where none or several are."""
    return np.where((present == 1).sum(1) == 1, (present == 1).argmax(1), -1)


def celeba(paths: Sequence[Path], seed: int) -> Raw:
    """Aligned faces, the centre 75 x 75 of 89 x 109 reduced to 64 x 64; attributes are known for 6128 of 10000."""
    z = _npz(paths[0])
    blob, offsets = z["jpeg"].tobytes(), z["offsets"]
    x = np.empty((len(offsets) - 1, 64, 64, 3), np.uint8)
    for i, (a, b) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        x[i] = np.asarray(Image.open(io.BytesIO(blob[a:b])).crop((7, 20, 82, 95)).resize((64, 64)))
    kept, held = hold_out(len(x), 1000, _FIXED)
    x = _channels_first(x)
    index = {"train": kept, "test": held}
    attributes, names = z["attributes"], z["attribute_names"].tolist()
    known = (attributes != 0).any(1)
    label = np.where(known[:, None], attributes > 0, -1).astype(np.int64)
    labels = {**dict(zip(names, label.T, strict=True)), "hair": _one_of(label[:, [names.index(h) for h in _HAIR]])}
    return Raw(
        {s: Part(x[i]) for s, i in index.items()},
        ("test: 1000 of the first 10000 official training images, held out at random, the same for every seed.",),
        choices={name: {s: y[i] for s, i in index.items()} for name, y in labels.items()},
        choice_names={**{name: (f"not {name}", name) for name in names}, "hair": _HAIR},
        notes=(
            "unlabelled unless label= or condition= names attributes, which are known for 6128 images; label=hair: its "
            "colour or cover where exactly one is marked",
        ),
    )


def bsds300_patches(paths: Sequence[Path], seed: int) -> Raw:
    z = _npz(paths[0])
    parts = {"train": "train_patches", "validation": "valid_patches", "test": "test_patches"}
    return Raw({s: Part(z[key][:, None]) for s, key in parts.items()}, ("all three are those of the source's copy.",))


def uci(name: str, paths: Sequence[Path], seed: int) -> Raw:
    """One of the regression tables; the last column is the target (naval_propulsion_plant: the last two)."""
    x = _npz(paths[0])[name]
    targets = ["target 1", "target 2"] if name == "naval_propulsion_plant" else ["target"]
    columns = [f"x{i}" for i in range(x.shape[1] - len(targets))] + targets
    varies = x.min(0) < x.max(0)
    constant = [c for c, v in zip(columns, varies, strict=True) if not v]
    x, columns = np.ascontiguousarray(x[:, varies]), [c for c, v in zip(columns, varies, strict=True) if v]
    kept, held = hold_out(len(x), round(len(x) / 10), _FIXED)
    return Raw(
        {"train": Part(x[kept]), "test": Part(x[held])},
        (f"test: {len(held)} of {len(x)} rows, held out at random, the same for every seed.",),
        levels=None,
        columns=columns,
        notes=[f"left out, because constant: {', '.join(constant)}"] if constant else [],
    )


def magic(paths: Sequence[Path], seed: int) -> Raw:
    z = _npz(paths[0])
    parts = {s: Part(z[f"{s}_x"], z[f"{s}_labels"]) for s in ("train", "test")}
    return Raw(
        parts,
        ("test: that of the source.",),
        None,
        class_names=z["label_meaning"].tolist(),
        columns=z["names"].tolist(),
    )


def text(paths: Sequence[Path], seed: int) -> Raw:
    parts, characters, split = text_parts(paths[0].read_text(encoding="utf8"), paths[0].name)
    return Raw(parts, split, levels=len(characters), characters=characters)
