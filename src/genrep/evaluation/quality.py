"""Metrics of samples beside those of `measure`: spatial, transport and calorimeter distances, Inception score."""

from __future__ import annotations

import warnings

from genrep.contracts import Unsupported
from genrep.evaluation.calorimeter import channel_error, channel_wasserstein
from genrep.evaluation.distances import sinkhorn_distance, sliced_distance
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.features import reference_features
from genrep.evaluation.frechet import frechet_distance
from genrep.evaluation.scores import inception_score
from genrep.evaluation.subject import Subject

Found = dict[str, Estimate]


def spatial(s: Subject) -> Found:
    """The Fréchet distance of maps that keep where things are (sFID), extrapolated."""
    placed = s.extractor._replace(function=s.extractor.maps, name=f"{s.extractor.name}, spatial")
    real = reference_features(placed, s.real[0], split="test", data=s.splits.name)
    generated = placed(s.generated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the protocol holds what it warns of, and the report shows it
        protocol = {**s.protocol, **placed.protocol}
        return {"spatial_frechet": frechet_distance(real=real, generated=generated, protocol=protocol, seed=s.seed)}


def sinkhorn(s: Subject, *, blur: float | None = None) -> Found:
    """The debiased Sinkhorn divergence of features, extrapolated.

    Args:
        blur: In units of the features; None: half the median distance of real features.
    """
    real, generated = s.features
    found = sinkhorn_distance(real=real, generated=generated, blur=blur, protocol=s.feature_protocol, seed=s.seed)
    return {"sinkhorn": found}


def sliced(s: Subject, *, directions: int = 100) -> Found:
    """The mean squared Wasserstein distance of features along random directions, extrapolated.

    Args:
        directions: How many.
    """
    real, generated = s.features
    how = {"directions": directions, "protocol": s.feature_protocol, "seed": s.seed}
    return {"sliced": sliced_distance(real=real, generated=generated, **how)}


def calorimeter(s: Subject) -> Found:
    """Wasserstein distances of the five channels of a calorimeter and of all pooled; in order of conditions, the error.

    The error of a conditional model is the mean over channels of |real - generated| of showers of one particle.
    """
    if not s.extractor.name.startswith("channels"):
        raise Unsupported("Channels are those of a calorimeter: choose features channels, or channels:log1p.")
    real, generated = s.features
    found = channel_wasserstein(real=real, generated=generated, protocol=s.feature_protocol, seed=s.seed)
    named: Found = {f"channel_{i + 1}": e for i, e in enumerate(found.per_channel)}
    named["channels_pooled"] = found.pooled
    if s.model.generative.reads_y:
        n = min(len(real), len(generated))  # the i-th sample has the condition of the i-th test example
        how = {"protocol": s.feature_protocol, "seed": s.seed}
        named["channel_error"] = channel_error(real=real[:n], generated=generated[:n], **how)
    return named


def inception(s: Subject, *, splits: int = 10) -> Found:
    """The Inception score of samples, by the classifier of the features.

    Args:
        splits: Parts of the samples; the score is their mean.
    """
    p = s.extractor.probabilities(s.generated)
    return {"inception_score": inception_score(p, splits=splits, protocol=s.feature_protocol, seed=s.seed)}
