"""Metrics of what a model has learnt to see: probes, neighbourhoods, clusters, one code for one factor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from genrep.contracts import Unsupported, evaluating, seeded
from genrep.evaluation.clusters import clustering_accuracy, normalised_mutual_information, trustworthiness
from genrep.evaluation.disentanglement import dci, mutual_information_gap, separated_predictability
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.features import examples
from genrep.evaluation.probe import probe as read
from genrep.evaluation.subject import Subject
from genrep.naming import choose

Found = dict[str, Estimate]
_PROBED = 5000  # training examples that a probe reads
_NEIGHBOURS = 1000  # test examples among which neighbourhoods are compared
_FACTOR_BINS = 10  # of a real condition, where metrics need integers


def represent(s: Subject, x: Tensor, y: Tensor | None, *, layer: str = "all", noise: float = 0.0) -> Tensor:
    """One layer of the model's representation, or all side by side, (N, d), at a noise level in [0, 1]."""
    y = y if s.model.generative.reads_y else None
    chosen = None if layer == "all" else layer
    with torch.no_grad(), evaluating(s.model), seeded(s.seed):
        parts = [
            s.model.features(x[i : i + 256], condition=None if y is None else y[i : i + 256], layer=chosen, noise=noise)
            for i in range(0, len(x), 256)
        ]
    return torch.cat([torch.cat([f.flatten(1).float().cpu() for f in p.values()], 1) for p in parts])


def layers(s: Subject) -> list[str]:
    """Names of the layers that the model has features of."""
    x, y = s.real
    condition = y[:2] if s.model.generative.reads_y and y is not None else None
    with torch.no_grad(), evaluating(s.model), seeded(s.seed):
        return list(s.model.features(x[:2], condition=condition))


def require_own(s: Subject) -> None:
    """Raises Unsupported where there is no representation, or one computed from the label."""
    s.model.require("features")
    inference = s.model.inference
    if "features" not in inference and inference.latent.reads_y:
        raise Unsupported("This model's representation is computed from the label, so a probe would only read it back.")


def _known(s: Subject, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Examples with a target: known labels, or the columns of the condition that vary among the test examples."""
    if y is None or not (s.splits.spec.classes or s.splits.spec.condition):
        raise Unsupported("A probe needs labels or conditions as targets, and this data set has none.")
    if y.is_floating_point():
        columns = varying(s)
        return x, y[:, columns]
    return x[y >= 0], y[y >= 0]


def varying(s: Subject) -> list[int]:
    """Columns of the condition that are not constant among the test examples."""
    y = s.real[1]
    assert y is not None
    found = [j for j in range(y.shape[1]) if len(y[:, j].unique()) > 1]
    if not found:
        raise Unsupported("The conditions of the test examples are all the same, so there is nothing to predict.")
    return found


def _places(s: Subject, layer: str, noise: tuple[float, ...]) -> Iterator[tuple[str, str, float]]:
    """(suffix of the result's name, layer, noise) of everything asked for; the suffix is empty where there is one."""
    chosen = layers(s) if layer == "each" else [layer]
    for one in chosen:
        if one != "all":
            choose(one, layers(s), "layer")
        for t in noise:
            if not 0 <= t <= 1:
                raise ValueError(f"Expected noise levels in [0, 1], got {t:g}.")
            yield (f"[{one}, {t:g}]" if len(chosen) * len(noise) > 1 else ""), one, t


def probe(s: Subject, *, layer: str = "all", noise: tuple[float, ...] = (0.0,)) -> Found:
    """Test accuracy, or R^2 of a condition, of linear and nearest-neighbour readers of the representation.

    Args:
        layer: A layer by name; all: side by side; each: one probe for each layer.
        noise: Levels in [0, 1] at which a diffusion model's features are read.
    """
    require_own(s)
    train, target = _known(s, *examples(s.splits.train, _PROBED))
    x, y = _known(s, *s.real)
    found: Found = {}
    for suffix, one, t in _places(s, layer, noise):
        a, b = (represent(s, *given, layer=one, noise=t) for given in ((train, target), (x, y)))
        protocol = {**s.protocol, "layers": one, "noise": t, "width": a.shape[1]}
        how: dict[str, Any] = {"protocol": protocol, "seed": s.seed}
        found[f"probe{suffix}"] = read(a, target, b, y, **how)
        found[f"probe_neighbours{suffix}"] = read(a, target, b, y, reader="neighbours", **how)
    return found


def representation(s: Subject, *, layer: str = "all", noise: tuple[float, ...] = (0.0,)) -> Found:
    """Do neighbours in the representation resemble each other, and do its clusters follow the classes?

    Trustworthiness of the representation as an embedding of the data; accuracy and normalised mutual information of as
    many k-means clusters as there are classes, on test examples.

    Args:
        layer: A layer by name; all: side by side; each: one result for each layer.
        noise: Levels in [0, 1] at which a diffusion model's features are read.
    """
    require_own(s)
    x, y = s.real
    flat = s.model.domain.inward(s.model.check(x[:_NEIGHBOURS])).flatten(1).float().cpu()
    found: Found = {}
    for suffix, one, t in _places(s, layer, noise):
        code = represent(s, x, y, layer=one, noise=t)
        protocol = {**s.protocol, "layers": one, "noise": t, "width": code.shape[1]}
        found[f"trustworthiness{suffix}"] = trustworthiness(flat, code[:_NEIGHBOURS], protocol=protocol)
        if s.splits.spec.classes > 1 and y is not None:
            known = y >= 0
            means = KMeans(s.splits.spec.classes, n_init=10, random_state=s.seed)  # pyright: ignore[reportArgumentType]: takes int
            clusters = torch.from_numpy(means.fit_predict(code[known].numpy())).long()
            found[f"clustering_accuracy{suffix}"] = clustering_accuracy(y[known], clusters, protocol=protocol)
            found[f"clustering_information{suffix}"] = normalised_mutual_information(
                y[known], clusters, protocol=protocol, seed=s.seed
            )
    return found


def disentanglement(s: Subject, *, layer: str = "all", noise: tuple[float, ...] = (0.0,)) -> Found:
    """MIG and SAP, and with two factors or more DCI, of the representation against labels or conditions.

    The factors are the label, or the columns of the condition cut into 10 bins of equal width.

    Args:
        layer: A layer by name; all: side by side; each: one result for each layer.
        noise: Levels in [0, 1] at which a diffusion model's features are read.
    """
    require_own(s)
    x, y = _known(s, *s.real)
    factors = _binned(y) if y.is_floating_point() else y[:, None].long()
    found: Found = {}
    for suffix, one, t in _places(s, layer, noise):
        code = represent(s, x, y, layer=one, noise=t)
        how: dict[str, Any] = {"protocol": {**s.protocol, "layers": one, "noise": t}, "seed": s.seed}
        found[f"mig{suffix}"] = mutual_information_gap(code, factors, **how)
        found[f"sap{suffix}"] = separated_predictability(code, factors, **how)
        if factors.shape[1] > 1:
            found |= {f"{name}{suffix}": value for name, value in dci(code, factors, **how)._asdict().items()}
    return found


def _binned(y: Tensor) -> Tensor:
    low, high = y.min(0).values, y.max(0).values
    return ((y - low) / (high - low) * _FACTOR_BINS).long().clamp_max(_FACTOR_BINS - 1)
