"""Features in which distances between sets are measured, each with a name and a hash; only one hash compares.

The scale of a distance belongs to its extractor: two networks that differ in a few epochs give the same two sets
distances that differ by a factor of four. So an extractor is made once from a fixed seed, kept, and named by a hash of
its weights, which every result carries. `extractors.extractor` makes one by name.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep import storage
from genrep.contracts import Data, DataSpec, Model, Unsupported, evaluating, seeded
from genrep.data.batches import InMemory
from genrep.data.splits import Splits

_BATCH = 512
Function = Callable[[Tensor], Tensor]
ExtractorName = str  # as `extractors.extractor` reads it: lenet, pca:64, inception:FILE


class Extractor(NamedTuple):
    """From examples as the data set holds them to features (N, d) float32.

    `spatial` gives a flattened map that keeps where things are, `classify` class probabilities; None: it has none.
    `kept`: whether the hash says all of it, so that its features may be kept between runs.
    """

    name: str
    hash: str
    about: dict[str, Any]
    function: Function
    spatial: Function | None = None
    classify: Function | None = None
    kept: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        """Features of x (N, *shape), computed in batches."""
        return self._batched(self.function, x)

    def maps(self, x: Tensor) -> Tensor:
        """Flattened spatial features of x, (N, d); Unsupported where the extractor has none."""
        if self.spatial is None:
            raise Unsupported(f"Features {self.name} have no spatial map; choose lenet, random or inception:FILE.")
        return self._batched(self.spatial, x)

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities of x, (N, C); Unsupported where the extractor is no classifier."""
        if self.classify is None:
            raise Unsupported(f"Features {self.name} do not classify; choose lenet, emnist or inception:FILE.")
        return self._batched(self.classify, x)

    @staticmethod
    def _batched(function: Function, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([function(part).float().cpu() for part in x.split(_BATCH)])

    @property
    def protocol(self) -> dict[str, Any]:
        """What every result measured in these features carries."""
        preprocessing = self.about.get("preprocessing", "the function's own")
        return {"features": self.name, "features_hash": self.hash, "preprocessing": preprocessing}


def examples(data: Data, n: int | None = None) -> tuple[Tensor, Tensor | None]:
    """The first n examples (all by default) and their labels or conditions, on the CPU."""
    x, y = data[torch.arange(min(len(data), len(data) if n is None else n))]
    return x.cpu(), None if y is None else y.cpu()


def fingerprint(splits: Splits) -> str:
    """A hash of the data and their division: of counts, specification and examples of every split.

    All examples of data in memory count, a thousand of each split that is read from disk. Hidden labels count too.
    """
    spec = splits.spec
    found = hashlib.blake2b(repr(spec).encode(), digest_size=8)
    for data in (splits.train, splits.validation, splits.test):
        count = len(data) if isinstance(data, InMemory) else min(1000, len(data))
        found.update(str(len(data)).encode())
        for index in torch.linspace(0, len(data) - 1, count, dtype=torch.float64).round().long().split(4096):
            x, y = data[index]
            found.update(x.cpu().contiguous().numpy().tobytes())
            if spec.classes and y is not None and bool((y < 0).any()):
                found.update(y.cpu().numpy().tobytes())
    return found.hexdigest()


def digest(*tensors: Tensor) -> str:
    """A short hash of what tensors hold."""
    found = hashlib.blake2b(digest_size=6)
    for t in tensors:
        found.update(t.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def cache_folder() -> Path:
    """Where extractors and features are kept between runs: $GENREP_CACHE, else genrep in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("GENREP_CACHE", home / "genrep"))


def reference_features(extractor: Extractor, x: Tensor, **said: Any) -> Tensor:
    """Features of reference examples x (N, *shape), read from the cache where they were computed before.

    The key is a hash of the examples themselves, of the extractor and of what is `said` (data, split). A file that is
    damaged or says something else than its key is named in a warning, and made anew.
    """
    if not extractor.kept:
        return extractor(x)
    about = {**said, **extractor.protocol, "examples": digest(x), "shape": list(x.shape), "dtype": str(x.dtype)}
    key = hashlib.blake2b(repr(sorted(about.items())).encode(), digest_size=10).hexdigest()
    path = cache_folder() / f"features-{key}.safetensors"
    if path.exists():
        try:
            found = storage.load(path)
            if found.about != about or list(found.tensors) != ["features"] or len(found.tensors["features"]) != len(x):
                raise ValueError(f"{path} holds features of something else.")
            return found.tensors["features"]
        except ValueError as error:
            warnings.warn(f"{error} It is made anew.", stacklevel=2)
    features = extractor(x)
    storage.save(path, {"features": features}, about)
    return features


def own(name: str, function: Function, probe: DataSpec) -> Extractor:
    """A user's function (N, *shape) -> (N, d), hashed by what it answers to fixed random examples; never kept."""
    with seeded(0):
        shape = (8, *probe.shape)
        x = torch.randn(shape) if probe.levels is None else torch.randint(probe.levels, shape, dtype=torch.uint8)
    with torch.no_grad():
        answer = function(x)
    if answer.ndim != 2 or len(answer) != 8:
        raise ValueError(f"Expected features of shape (8, d) from {name}, got {tuple(answer.shape)}.")
    return Extractor(name, digest(answer.float()), {"width": answer.shape[1]}, function, kept=False)


def encoder(model: Model) -> Extractor:
    """The representation of a model of one's own, e.g. to compare other models in it."""
    model.require("features")
    if model.generative.reads_y:
        raise Unsupported("The representation of a conditional model needs a condition; choose other features.")

    def features(x: Tensor) -> Tensor:
        with evaluating(model), seeded(0):
            return torch.cat([f.flatten(1) for f in model.features(x).values()], 1)

    return own(f"encoder of {model.recipe.name if model.recipe else 'a model'}", features, model.data)
