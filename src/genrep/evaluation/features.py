"""Features in which distances between sets are measured, each with a name and a hash; only one hash compares.

The scale of a distance belongs to its extractor: two networks that differ in a few epochs give the same two sets
distances that differ by a factor of four. So an extractor is trained once from a fixed seed, kept, and named by a hash
of its weights, which every result carries.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from genrep import storage
from genrep.contracts import Data, DataSpec, Inference, Model, evaluating, seeded
from genrep.data.splits import Splits
from genrep.distributions.domains import domain_for
from genrep.distributions.label import Label
from genrep.naming import choose
from genrep.nets.lenet import LeNet
from genrep.objectives.classification import CrossEntropy
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode

ExtractorName = Literal["auto", "lenet", "pca", "random", "columns"]
_BATCH = 512


class Extractor(NamedTuple):
    """From examples as the data set holds them to features (N, d) float32."""

    name: str
    hash: str
    about: dict[str, Any]
    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Features of x (N, *shape), computed in batches."""
        with torch.no_grad():
            return torch.cat([self.function(part).float().cpu() for part in x.split(_BATCH)])

    @property
    def protocol(self) -> dict[str, Any]:
        """What every result measured in these features carries."""
        return {"features": self.name, "features_hash": self.hash}


def extractor(name: ExtractorName, splits: Splits) -> Extractor:
    """The extractor of that name for a data set; auto: columns for tables, lenet for labelled images, else pca.

    lenet: the 84 features of a LeNet trained on the labels of the training split. pca: at most 64 principal components
    of the training split. random: features of an untrained convolutional network. columns: a table in standard units.
    """
    spec = splits.spec
    image = len(spec.shape) == 3
    if name == "auto":
        name = "columns" if not image else "lenet" if spec.classes > 1 else "pca"
    choose(name, ("lenet", "pca", "random", "columns"), "extractor")
    if image == (name == "columns") and name != "pca":
        raise ValueError(
            f"Extractor {name} is for {'tables' if image else 'images'}; this data has shape {spec.shape}."
        )
    return {"lenet": _lenet, "pca": _pca, "random": _random, "columns": _columns}[name](splits)


def examples(data: Data, n: int | None = None) -> tuple[Tensor, Tensor | None]:
    """The first n examples (all by default) and their labels or conditions, on the CPU."""
    x, y = data[torch.arange(min(len(data), len(data) if n is None else n))]
    return x.cpu(), None if y is None else y.cpu()


def fingerprint(splits: Splits) -> str:
    """A hash of the data and their division: of counts, specification and a thousand examples of every split."""
    spec = splits.spec
    digest = hashlib.blake2b(repr(spec).encode(), digest_size=8)
    for data in (splits.train, splits.validation, splits.test):
        index = torch.linspace(0, len(data) - 1, min(1000, len(data))).long()
        x, y = data[index]
        digest.update(str(len(data)).encode() + x.cpu().contiguous().numpy().tobytes())
        if spec.classes and y is not None and bool((y < 0).any()):
            digest.update(y.cpu().numpy().tobytes())  # hidden labels make other data of it
    return digest.hexdigest()


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for t in tensors:
        digest.update(t.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where extractors are kept between runs: $GENREP_CACHE, else genrep in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("GENREP_CACHE", home / "genrep"))


def _lenet(splits: Splits) -> Extractor:
    spec = splits.spec
    if spec.classes < 2:
        raise ValueError("Extractor lenet needs labels; choose pca or random.")
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
    accuracy = float((logits.argmax(1) == y).float().mean())
    about = {**how, "test_accuracy": accuracy, "width": 84}
    return Extractor("lenet", _hash(*storage.state(net).values()), about, lambda x: net.embed(model.domain.inward(x)))


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


def _pca(splits: Splits) -> Extractor:
    x, _ = examples(splits.train, 10_000)
    domain = domain_for(splits.spec)
    flat = domain.inward(x).flatten(1).double()
    mean, width = flat.mean(0), min(64, flat.shape[1], len(flat) - 1)
    values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / (len(flat) - 1))
    basis = vectors[:, -width:]
    basis = torch.where(basis.sum(0) < 0, -basis, basis)  # eigenvectors have no sign of their own
    explained = float(values[-width:].sum() / values.sum())
    hashed = _hash(mean.float(), basis.float())
    about = {"width": width, "variance": explained}
    return Extractor("pca", hashed, about, lambda x: (domain.inward(x).flatten(1).double() - mean) @ basis)


def _random(splits: Splits) -> Extractor:
    with seeded(0):
        net = LeNet(splits.spec.shape[0], 2).eval()
    domain = domain_for(splits.spec)
    return Extractor(
        "random", _hash(*storage.state(net).values()), {"width": 84}, lambda x: net.embed(domain.inward(x))
    )


def _columns(splits: Splits) -> Extractor:
    domain = domain_for(splits.spec)
    hashed = _hash(torch.tensor([splits.spec.mean, splits.spec.std], dtype=torch.float64))
    return Extractor("columns", hashed, {"width": splits.spec.size}, lambda x: domain.inward(x).flatten(1))


def own(name: str, function: Callable[[Tensor], Tensor], probe: DataSpec) -> Extractor:
    """A user's function (N, *shape) -> (N, d), hashed by what it answers to fixed random examples."""
    with seeded(0):
        shape = (8, *probe.shape)
        x = torch.randn(shape) if probe.levels is None else torch.randint(probe.levels, shape, dtype=torch.uint8)
    with torch.no_grad():
        answer = function(x)
    if answer.ndim != 2 or len(answer) != 8:
        raise ValueError(f"Expected features of shape (8, d) from {name}, got {tuple(answer.shape)}.")
    return Extractor(name, _hash(answer.float()), {"width": answer.shape[1]}, function)


def encoder(model: Model) -> Extractor:
    """The representation of a model of one's own, e.g. to compare other models in it."""
    model.require("features")

    def features(x: Tensor) -> Tensor:
        with evaluating(model):
            return torch.cat([f.flatten(1) for f in model.features(x).values()], 1)

    return own(f"encoder of {model.recipe.name if model.recipe else 'a model'}", features, model.data)
