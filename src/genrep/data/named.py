"""The named data sets: what they are, where they live, and how label and condition are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genrep.data import density, readers
from genrep.data.binary import bernoulli
from genrep.data.readers import Raw
from genrep.data.sources import File, fetch
from genrep.data.splits import Part, Splits, assemble
from genrep.naming import choose


class Source(NamedTuple):
    about: str
    home: str
    licence: str
    read: Callable[[Sequence[Path], int], Raw]
    files: Sequence[File] = ()
    then: Callable[[Splits], Splits] = lambda splits: splits  # what is done to the splits in the end


def names() -> list[str]:
    """All named data sets."""
    return sorted(SOURCES)


def read_named(name: str, *, label: str | None, condition: Sequence[str], seed: int) -> Splits:
    """The splits of a named set; `label` or `condition` replace the label that it has of itself."""
    source = SOURCES[choose(name, SOURCES, "data set")]
    raw = source.read([fetch(file) for file in source.files], seed)
    about: dict[str, Any] = {
        "source": source.about,
        "home": source.home,
        "licence": source.licence,
        "split": list(raw.split),
        "inferred": list(raw.notes),
        **({"md5": {file.path: file.md5 for file in source.files}} if source.files else {}),
    }
    if raw.class_names and not condition:
        about["class_names"] = list(raw.class_names)
    if label:
        raw = _label(name, raw, label, about)
    if condition:
        raw = _condition(name, raw, condition, about)
    if raw.conditions:
        about["condition"] = list(raw.conditions)
    if raw.columns:
        about["columns"] = list(raw.columns)
    if raw.characters:
        about["characters"] = list(raw.characters)
    about["inferred"].append(f"levels {raw.levels}" if raw.levels else "real values")
    return source.then(assemble(name, raw.parts, levels=raw.levels, seed=seed, about=about, channels=raw.columns))


def _label(name: str, raw: Raw, label: str, about: dict[str, Any]) -> Raw:
    if not raw.choices:
        has = "its labels already" if raw.class_names else "no labels to choose from"
        raise ValueError(f"{name} has {has}: leave label= out.")
    choose(label, raw.choices, f"label of {name}")
    about["class_names"] = list(raw.choice_names[label])
    return raw._replace(parts={s: Part(p.x, raw.choices[label][s]) for s, p in raw.parts.items()})


def _condition(name: str, raw: Raw, condition: Sequence[str], about: dict[str, Any]) -> Raw:
    """Columns of a table leave x; attributes of images are read beside it, and images without them are left out."""
    about["condition"] = list(condition)
    if raw.columns:
        for column in condition:
            choose(column, raw.columns, f"column of {name}")
        mine = np.array([c in condition for c in raw.columns])
        if mine.all():
            raise ValueError(f"{name} has no columns left besides the condition.")
        order = [list(raw.columns).index(c) for c in condition]
        parts = {s: Part(np.ascontiguousarray(p.x[:, ~mine]), p.x[:, order]) for s, p in raw.parts.items()}
        return raw._replace(parts=parts, columns=[c for c in raw.columns if c not in condition])
    if not raw.choices:
        raise ValueError(f"{name} has no columns to condition on: leave condition= out.")
    for column in condition:
        choose(column, raw.choices, f"condition of {name}")
    return raw._replace(parts={s: _with_attributes(p, raw.choices, condition, s) for s, p in raw.parts.items()})


def _with_attributes(
    part: Part, choices: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], split: str
) -> Part:
    y = np.stack([choices[name][split] for name in names], axis=1)
    known = (y >= 0).all(1)
    return Part(part.x[known], y[known].astype(np.float32))


def _idx(folder: str, home: str, sums: Sequence[str]) -> tuple[File, ...]:
    files = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(File(f"{folder}/{f}", md5, home + f) for f, md5 in zip(files, sums, strict=True))


_MNIST = _idx(
    "MNIST/raw",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
_FASHION = _idx(
    "FashionMNIST/raw",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_UCI_HOME = "https://archive.ics.uci.edu/"
_UCI = (
    "concrete",
    "energy",
    "kin8nm",
    "naval_propulsion_plant",
    "power_plant",
    "protein_tertiary_structure",
    "wine_quality_red",
    "yacht",
)

SOURCES: dict[str, Source] = {
    "digits": Source(
        "8 x 8 handwritten digits with 17 grey levels, as scikit-learn holds them",
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        "CC BY 4.0",
        readers.digits,
    ),
    "shapes": Source(
        "shapes of known kind, position, scale, rotation and colour on black, 32 x 32, drawn by this library",
        "https://en.wikipedia.org/wiki/Signed_distance_function",
        "that of this library",
        readers.shapes,
    ),
    "showers": Source(
        "particle showers in 44 x 44 fibres from a parametrised simulator, log(1 + photoelectrons); not Geant4",
        "https://arxiv.org/abs/hep-ex/0001020",
        "that of this library",
        readers.showers,
    ),
    "mnist": Source(
        "MNIST, 28 x 28 handwritten digits", "http://yann.lecun.com/exdb/mnist/", "none stated", readers.mnist, _MNIST
    ),
    "mnist_binary": Source(
        "MNIST with binary pixels, drawn with the grey values as probabilities",
        "http://yann.lecun.com/exdb/mnist/",
        "none stated",
        readers.mnist,
        _MNIST,
        bernoulli,
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST, 28 x 28 pictures of clothes",
        "https://github.com/zalandoresearch/fashion-mnist",
        "MIT",
        readers.fashion_mnist,
        _FASHION,
    ),
    "omniglot": Source(
        "Omniglot, characters of 50 alphabets by 20 drawers, area-averaged from 105 x 105 to 28 x 28",
        "https://github.com/brendenlake/omniglot",
        "MIT",
        readers.omniglot,
        (File("omniglot/omniglot_28x28.npz", "e5a5433f4d773ca45ebcf697cd0f6ba6"),),
    ),
    "omniglot_drawers": Source(
        "Omniglot, all 50 alphabets as classes, tested on drawers that were not seen in training",
        "https://github.com/brendenlake/omniglot",
        "MIT",
        readers.omniglot_drawers,
        (File("omniglot/omniglot_28x28.npz", "e5a5433f4d773ca45ebcf697cd0f6ba6"),),
    ),
    "usps": Source(
        "USPS, 16 x 16 handwritten digits, grey values rounded to 256 levels",
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps",
        "none stated",
        readers.labelled_images,
        (File("usps/usps_16x16.npz", "b95ecee6ca891bbe53811e5a9b126038"),),
    ),
    "cifar10": Source(
        "CIFAR-10, 32 x 32 colour photographs of 10 classes, decoded from JPEG of quality 75",
        _CIFAR_HOME,
        "none stated",
        readers.cifar10,
        (File("cifar10/cifar10_full_jpegq75.npz", "fe4a13c271d8ff77c6a5ba3b35c82dd4"),),
    ),
    "cifar10_lossless": Source(
        "The first 4000 training images of CIFAR-10 in their original pixels",
        _CIFAR_HOME,
        "none stated",
        readers.cifar10_lossless,
        (File("cifar10/cifar10_first4000_lossless.npz", "9b60d0fee976f9290c9c197852fbdf56"),),
    ),
    "mnist_m": Source(
        "MNIST-M, MNIST digits blended over 32 x 32 colour patches; a class-balanced subset",
        "http://yaroslav.ganin.net/",
        "none stated",
        readers.labelled_images,
        (File("mnist_m/mnist_m_32x32.npz", "79604874ee895aa2eaf1b1e8e2090f42"),),
    ),
    "svhn_sample": Source(
        "130 images of SVHN, 32 x 32 house numbers",
        "http://ufldl.stanford.edu/housenumbers/",
        "non-commercial use only",
        readers.svhn_sample,
        (File("svhn_sample/svhn_130_32x32.npz", "ab5d4b29199c15a3a11be14faaea589a"),),
    ),
    "emnist_letters": Source(
        "EMNIST letters, 28 x 28, upper and lower case merged; a class-balanced subset",
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        "none stated",
        readers.labelled_images,
        (File("emnist_letters/emnist_letters_28x28.npz", "265b655b06a9e247535a3c687c738ad1"),),
    ),
    "celeba": Source(
        "CelebA, the first 10000 aligned faces, cropped and reduced to 64 x 64 from half-size JPEG",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "non-commercial research only, not to be redistributed",
        readers.celeba,
        (File("celeba/celeba_first10000_89x109_jpeg.npz", "7caf175217c42a739481a2b5f3c51517"),),
    ),
    "malaria": Source(
        "NIH malaria cell images (Rajaraman et al., 2018), reduced to 50 x 50 grey; a balanced subset",
        "https://lhncbc.nlm.nih.gov/LHC-research/LHC-projects/image-processing/malaria-datasheet.html",
        "none stated",
        readers.malaria,
        (File("malaria/malaria_cells_50x50_grey.npz", "87343b7a19fc7215e71959e7d6b878ce"),),
    ),
    "bsds300_patches": Source(
        "8 x 8 grey patches of the Berkeley segmentation images (BSDS300)",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
        "none stated",
        readers.bsds300_patches,
        (File("tabular/bsds300_patches_8x8.npz", "12e3cd536fb8589810dbde1233fbadfb"),),
    ),
    "bsds300": Source(
        "BSDS300 as a table: 8 x 8 grey patches with noise, minus their mean, without the last pixel",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
        "none stated",
        density.bsds300,
        (File("tabular/bsds300_patches_8x8.npz", "12e3cd536fb8589810dbde1233fbadfb"),),
    ),
    **{
        name: Source(f"{about}, prepared as in Papamakarios et al., 2017; files of the user", _UCI_HOME, "see there", f)
        for name, about, f in (
            ("power", "POWER, household electricity", density.power),
            ("gas", "GAS, sensors in mixtures of ethylene and CO", density.gas),
            ("hepmass", "HEPMASS, simulated collisions", density.hepmass),
            ("miniboone", "MINIBOONE, neutrinos", density.miniboone),
        )
    },
    "magic": Source(
        "MAGIC gamma telescope: parameters of simulated air showers, gamma against hadron",
        "https://archive.ics.uci.edu/dataset/159/magic+gamma+telescope",
        "CC BY 4.0",
        readers.magic,
        (File("tabular/magic_gamma_telescope.npz", "3955cd11e849e334b8f4ea2cb9fb28f8"),),
    ),
    "tiny_shakespeare": Source(
        "Tiny Shakespeare, 1,115,394 characters of his plays, in windows of 64",
        "https://github.com/karpathy/char-rnn",
        "MIT",
        readers.text,
        (File("text/tinyshakespeare.txt", "6fb458f1232090904fb40fe944165e91"),),
    ),
    **{
        f"uci_{name}": Source(
            f"UCI regression table {name}; the target is a column like the others",
            _UCI_HOME,
            "that of the UCI repository",
            partial(readers.uci, name),
            (File("tabular/uci_small.npz", "821e3adb5d2a909dc328ceb118f85a43"),),
        )
        for name in _UCI
    },
}
