"""The extractors that need no weights from elsewhere, and how any extractor is chosen by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from genrep import data as data_sets
from genrep import storage
from genrep.contracts import DataSpec, Domain, Inference, Model, seeded
from genrep.data.splits import Splits
from genrep.distributions.domains import domain_for
from genrep.distributions.label import Label
from genrep.evaluation.calorimeter import channels
from genrep.evaluation.features import Extractor, cache_folder, digest, encoder, examples, fingerprint
from genrep.evaluation.pretrained import dinov2, inception
from genrep.naming import choose
from genrep.nets.lenet import LeNet
from genrep.objectives.classification import CrossEntropy
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode

NAMES = ("lenet", "emnist", "pca", "random", "own", "columns", "channels", "inception", "dinov2")
_ARGUMENT = {"pca": "a number of components", "channels": "log1p", "inception": "a file", "dinov2": "a file"}
_BATCH = 512
_SPATIAL = 7  # channels of a map that a spatial distance reads
_ALL_AXES = 2048  # columns up to which all principal axes are computed at once
_LETTERS = 28  # side of the images that the letter classifier was trained on


def extractor(name: str | Extractor, splits: Splits, model: Model | None = None) -> Extractor:
    """The extractor of that name for a data set; what stands behind a colon is its argument.

    auto: columns for tables, lenet for labelled images, emnist for omniglot, else pca. lenet: the 84 features of a
    LeNet trained on the labels of the training split. emnist: of one trained on handwritten letters, for 28 x 28 grey
    characters. pca, pca:K: the first K (64) principal components of the training split. random: an untrained LeNet.
    own: the representation of `model`. columns: a table in standard units. channels, channels:log1p: the five channels
    of a calorimeter, of energies or of log(1 + energy). inception:FILE, dinov2:FILE: networks with local weights.
    An extractor that is one already, e.g. a function of one's own (`features.own`), is returned as it is.
    """
    if isinstance(name, Extractor):
        return name
    spec = splits.spec
    image = len(spec.shape) == 3
    name, _, argument = name.partition(":")
    if name == "auto":
        name = _usual(splits)
    choose(name, NAMES, "features")
    if argument and name not in _ARGUMENT:
        raise ValueError(f"Features {name} take nothing behind a colon, got {argument!r}.")
    if name not in ("pca", "own") and image == (name == "columns"):
        kind = "tables" if image else "images"
        raise ValueError(f"Features {name} are for {kind}; this data has shape {spec.shape}.")
    if name == "own":
        if model is None:
            raise ValueError(
                "Features own are those of the one model that is measured; several models are compared in features "
                "that do not depend on them: choose lenet, pca, random or an Extractor made by features.encoder."
            )
        return encoder(model)
    if name in ("inception", "dinov2"):
        return {"inception": inception, "dinov2": dinov2}[name](argument, spec)
    if name == "pca":
        return _pca(splits, _components(argument))
    if name == "channels":
        return _channels(spec, argument)
    return {"lenet": _lenet, "emnist": _emnist, "random": _random, "columns": _columns}[name](splits)


def _usual(splits: Splits) -> str:
    if len(splits.spec.shape) != 3:
        return "columns"
    if splits.spec.classes > 1:
        return "lenet"
    return "emnist" if splits.name == "omniglot" else "pca"


def _components(argument: str) -> int:
    if argument and not (argument.isdigit() and int(argument)):
        raise ValueError(f"Expected a number of components, as in pca:64, got pca:{argument}.")
    return int(argument or 64)


def _levels(spec: DataSpec) -> str:
    return "standard units" if spec.levels is None else f"{spec.levels} levels to [-1, 1]"


def _trained(splits: Splits) -> tuple[LeNet, Domain, dict[str, float]]:
    """The LeNet of a labelled data set, from the cache or trained anew, its domain and how it came about."""
    spec = splits.spec
    if spec.classes < 2:
        raise ValueError("Features lenet need labels; choose pca, random, inception:FILE or dinov2:FILE.")
    steps = max(1000, min(3000, 5 * len(splits.train) // 128))
    how = {"steps": steps, "batch": 128, "lr": 1e-3, "seed": 0}
    with seeded(0):
        net = LeNet(spec.shape[0], spec.classes)
    label = Label(net)
    model = Model(
        spec, label, Inference(label=label), CrossEntropy(learns=("inference.label",)), domain=domain_for(spec)
    )
    path = cache_folder() / f"lenet-{fingerprint(splits)}-{'-'.join(map(str, how.values()))}.safetensors"
    if not _kept(path, net):
        settings = Settings(steps=steps, batch=min(128, len(splits.train)), lr=1e-3, seed=0, device="cpu", ema=0.0)
        fit(model, splits.train, settings, mode=Mode())
        storage.save(path, storage.state(net), how)
    model.eval()
    x, y = examples(splits.test)
    assert y is not None
    with torch.no_grad():
        logits = torch.cat([net(model.domain.inward(part)) for part in x.split(_BATCH)])
    return net, model.domain, {**how, "test_accuracy": float((logits.argmax(1) == y).float().mean())}


def _kept(path: Path, net: nn.Module) -> bool:
    """Load the weights that an earlier run trained; a damaged file is named, and trained anew."""
    if not path.exists():
        return False
    try:
        storage.restore(net, storage.load(path).tensors, str(path))
    except ValueError as error:
        warnings.warn(f"{error} It is made anew.", stacklevel=2)
        return False
    return True


def _lenet(splits: Splits) -> Extractor:
    net, domain, how = _trained(splits)
    about = {**how, "width": 84, "preprocessing": _levels(splits.spec)}
    return Extractor(
        "lenet",
        digest(*storage.state(net).values()),
        about,
        lambda x: net.embed(domain.inward(x)),
        spatial=lambda x: net.maps(domain.inward(x))[:, :_SPATIAL].flatten(1),
        classify=lambda x: net(domain.inward(x)).softmax(1),
    )


def _emnist(splits: Splits) -> Extractor:
    """Of grey characters, resized to 28 x 28, by a LeNet that knows the letters of EMNIST."""
    spec = splits.spec
    if spec.levels is None or spec.shape[0] != 1:
        raise ValueError(f"Features emnist are for grey images over levels; this data is {spec}.")
    letters = data_sets.load("emnist_letters")
    net, domain, how = _trained(letters)
    top = (letters.spec.levels or 256) - 1

    def inside(x: Tensor) -> Tensor:
        x = x.float() * (top / (spec.levels - 1))  # pyright: ignore[reportOptionalOperand]: checked above
        if x.shape[2:] != (_LETTERS, _LETTERS):
            x = nn.functional.interpolate(x, size=_LETTERS, mode="bilinear", antialias=True)
        return domain.inward(x)

    about = {**how, "width": 84, "preprocessing": f"{_levels(spec)}, {_LETTERS} x {_LETTERS}, ink is bright"}
    return Extractor(
        "emnist",
        digest(*storage.state(net).values()),
        about,
        lambda x: net.embed(inside(x)),
        spatial=lambda x: net.maps(inside(x))[:, :_SPATIAL].flatten(1),
        classify=lambda x: net(inside(x)).softmax(1),
    )


def _pca(splits: Splits, components: int) -> Extractor:
    x, _ = examples(splits.train, 10_000)
    domain = domain_for(splits.spec)
    flat = domain.inward(x).flatten(1).double()
    mean, width = flat.mean(0), min(components, flat.shape[1], len(flat) - 1)
    centred = flat - mean
    variances, basis = principal_axes(centred, width)
    explained = float(variances.sum() / (centred.square().sum() / (len(flat) - 1)))
    hashed = digest(mean.float(), basis.float())
    about = {"width": width, "variance": explained, "preprocessing": _levels(splits.spec)}
    return Extractor("pca", hashed, about, lambda x: (domain.inward(x).flatten(1).double() - mean) @ basis)


def principal_axes(centred: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Variances (width,), rising, along the leading axes (D, width) of centred rows (n, D) in float64, width < n.

    Of many columns only these axes are computed, by Lanczos iterations to machine precision, not all in O(D^3).
    """
    n, columns = centred.shape
    if columns <= _ALL_AXES:
        values, vectors = torch.linalg.eigh(centred.T @ centred / (n - 1))
        variances, basis = values[-width:], vectors[:, -width:]
    else:
        start = np.ones(min(n, columns))
        _, singular, rows = svds(centred.numpy(), k=width, v0=start, return_singular_vectors="vh")  # pyright: ignore[reportArgumentType]: takes a name
        assert rows is not None
        order = np.argsort(singular)
        variances = torch.from_numpy(singular[order] ** 2 / (n - 1))
        basis = torch.from_numpy(rows[order].T.copy())
    return variances, torch.where(basis.sum(0) < 0, -basis, basis)  # axes have no sign of their own


def _random(splits: Splits) -> Extractor:
    with seeded(0):
        net = LeNet(splits.spec.shape[0], 2).eval()
    domain = domain_for(splits.spec)
    return Extractor(
        "random",
        digest(*storage.state(net).values()),
        {"width": 84, "preprocessing": _levels(splits.spec)},
        lambda x: net.embed(domain.inward(x)),
        spatial=lambda x: net.maps(domain.inward(x))[:, :_SPATIAL].flatten(1),
    )


def _columns(splits: Splits) -> Extractor:
    spec, domain = splits.spec, domain_for(splits.spec)
    hashed = digest(torch.tensor([spec.mean, spec.std], dtype=torch.float64))
    about = {"width": spec.size, "preprocessing": _levels(spec)}
    return Extractor("columns", hashed, about, lambda x: domain.inward(x).flatten(1))


def _channels(spec: DataSpec, argument: str) -> Extractor:
    if argument not in ("", "log1p"):
        raise ValueError(f"Expected channels, of energies, or channels:log1p, of log(1 + energy), got {argument!r}.")
    if spec.shape[0] != 1 or spec.shape[1] % 2 or spec.shape[2] % 2:
        raise ValueError(f"Features channels are for images (1, H, W) with even sides; this data is {spec.shape}.")

    def read(x: Tensor) -> Tensor:
        energy = x.double().expm1() if argument else x.double()
        return channels(energy.clamp(min=0))

    done = "exp(x) - 1, " if argument else ""
    about = {"width": 5, "preprocessing": f"{done}energies below zero count as zero"}
    return Extractor(f"channels{':log1p' if argument else ''}", digest(torch.zeros(1)), about, read)
