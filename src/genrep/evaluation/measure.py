"""Measure a model against held-out data: every metric by name, each with its error and its protocol."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from genrep.contracts import LogLikelihood, Model, Unsupported, evaluating, seeded
from genrep.data.splits import Splits
from genrep.evaluation import cost
from genrep.evaluation.bits import bits_per_dimension
from genrep.evaluation.coverage import prdc
from genrep.evaluation.curve import precision_recall_curve
from genrep.evaluation.estimate import Estimate, NullCheck, estimate, null_check
from genrep.evaluation.features import Extractor, examples, fingerprint
from genrep.evaluation.frechet import frechet_distance, plug_in
from genrep.evaluation.kernel import kernel_distance
from genrep.evaluation.memorisation import authenticity, copying
from genrep.evaluation.probe import probe
from genrep.evaluation.scores import absolute_error, ms_ssim, psnr
from genrep.evaluation.spectrum import spectral_gap
from genrep.naming import choose

Found = dict[str, Estimate]
_PROBED = 5000  # training examples that a probe reads
_TIMED = 64  # samples per batch when sampling is timed
_EVALUATIONS = 20  # of a chain's network, per sample and per example's bound, at most
_ODE = 50  # of the network along an equation that is solved for a density, where fewer would be biased
_GROUPS = 20  # of examples, for the jackknife that pairs likelihoods


class Subject:
    """A model beside the data it is measured on; samples, features and likelihoods are made once, when first needed.

    `samples` are drawn, `examples` of the test split are looked at, both chosen by `seed`; a conditional model is given
    the labels or conditions of test examples.
    """

    def __init__(
        self,
        model: Model,
        splits: Splits,
        extractor: Extractor,
        *,
        samples: int = 2000,
        examples: int = 2000,
        seed: int = 0,
        evaluations: int = _EVALUATIONS,
        bound_evaluations: int = _EVALUATIONS,
    ) -> None:
        if splits.spec != model.data:
            raise ValueError(
                f"The model was made for {model.data}, {splits.name} is {splits.spec}; measure it on its own data."
            )
        self.model, self.splits, self.extractor, self.seed, self.samples = model, splits, extractor, seed, samples
        self.sampling, self.bound_evaluations = quick_sampling(model, evaluations), bound_evaluations
        self.index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))[:examples]
        self.protocol = {
            "model": model.recipe.name if model.recipe else "own",
            "data": splits.name,
            "data_hash": fingerprint(splits),
            "split": "test",
        }

    @cached_property
    def real(self) -> tuple[Tensor, Tensor | None]:
        x, y = self.splits.test[self.index]
        return x.cpu(), None if y is None else y.cpu()

    def conditions(self, n: int) -> Tensor | None:
        """Labels or conditions of n test examples, from the first again when they run out; None if none is read."""
        y = self.real[1]
        if not self.model.generative.reads_y:
            return None
        assert y is not None
        return y[torch.arange(n) % len(y)]

    @cached_property
    def generated(self) -> Tensor:
        condition = self.conditions(self.samples)
        return self.model.sample(self.samples, condition=condition, seed=self.seed, **self.sampling).cpu()

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """Of test examples and of samples."""
        return self.extractor(self.real[0]), self.extractor(self.generated)

    @cached_property
    def train_features(self) -> Tensor:
        return self.extractor(examples(self.splits.train, 20_000)[0])

    @property
    def feature_protocol(self) -> dict[str, Any]:
        return {**self.protocol, **self.extractor.protocol}

    def log_likelihood(self, **how: Any) -> LogLikelihood:
        """Of all test examples looked at, in batches."""
        x, y = self.real
        y = y if self.model.generative.reads_y else None
        found = []
        with torch.no_grad(), evaluating(self.model), seeded(self.seed):
            for i in range(0, len(x), 128):
                part = slice(i, i + 128)
                found.append(self.model.log_likelihood(x[part], condition=None if y is None else y[part], **how))
        return LogLikelihood(torch.cat([f.value for f in found]).cpu(), found[0].kind, found[0].measure)

    @cached_property
    def likelihood(self) -> tuple[Tensor, dict[str, Any]]:
        """log p(x) of the test examples looked at, in nats (N,), and how it was found.

        A bound that is a sum over the steps of a chain is estimated, without bias, from some of them per example.
        """
        self.model.require("log_likelihood")
        method, way = next(iter(self.model.generative.likelihoods(self.model.inference).items()))
        most = self.bound_evaluations if way.kind == "lower bound" else _ODE
        steps = "evaluations" in inspect.signature(way.f).parameters
        how = {"evaluations": min(most, self.model.generative.evaluations())} if steps else {}
        nats, kind, measure = self.log_likelihood(method=method, **how)
        stated = {"kind": kind, "measure": measure, "method": method, "levels": self.splits.spec.levels, **how}
        return nats, {**self.protocol, **stated}

    def represent(self, x: Tensor, y: Tensor | None) -> Tensor:
        """All layers of the model's representation side by side, (N, d)."""
        y = y if self.model.generative.reads_y else None
        with torch.no_grad(), evaluating(self.model), seeded(self.seed):
            parts = [
                self.model.features(x[i : i + 256], condition=None if y is None else y[i : i + 256])
                for i in range(0, len(x), 256)
            ]
        return torch.cat([torch.cat([f.flatten(1).float().cpu() for f in p.values()], 1) for p in parts])


def quick_sampling(model: Model, evaluations: int = _EVALUATIONS) -> dict[str, Any]:
    """Sampling options for measuring: a chain is walked in at most so many evaluations, by DPM-Solver if it can be."""
    options = inspect.signature(type(model.generative).forward, eval_str=True).parameters
    if "evaluations" not in options:
        return {}
    how: dict[str, Any] = {"evaluations": min(evaluations, model.generative.evaluations())}
    if "sampler" in options and "dpm_solver" in get_args(options["sampler"].annotation):
        how["sampler"] = "dpm_solver"
    return how


def _mean(values: Tensor, **how: Any) -> Estimate:
    """A mean over examples (N,): its usual error, and jackknife replicates by which two models are paired."""
    values = values.double()
    return estimate(
        float(values.mean()), float(values.std()) / len(values) ** 0.5, n=(len(values), 0),
        replicates=_without_groups(values), **how,
    )  # fmt: skip


def _without_groups(values: Tensor) -> list[float]:
    """The mean without each of 20 groups of examples."""
    groups = min(_GROUPS, len(values))
    if groups < 2:
        return []
    total, parts = values.sum(), [values[i::groups] for i in range(groups)]
    return [float((total - part.sum()) / (len(values) - len(part))) for part in parts]


def _bits(s: Subject) -> Found:
    """Bits per dimension of masses over levels; nats of densities over real values."""
    nats, stated = s.likelihood
    if stated["measure"] != "mass":
        return {"nats": _mean(-nats, protocol=stated, metric="nats")}
    size = s.splits.spec.size
    found = bits_per_dimension(nats, size, protocol=stated)
    return {"bits": found._replace(replicates=tuple(_without_groups(-nats.double() / (size * math.log(2)))))}


def _nats(s: Subject) -> Found:
    """-log p(x) of a whole example in nats: of a mass, as papers print it for binary images, or of a density."""
    nats, stated = s.likelihood
    return {"nats": _mean(-nats, protocol=stated, metric="nats per example")}


def _plain(value: float, s: Subject, metric: str) -> Estimate:
    """A number without an error of its own."""
    real, generated = s.features
    return estimate(value, math.nan, n=(len(real), len(generated)), protocol=s.feature_protocol, metric=metric)


def _fd(s: Subject) -> Found:
    """The extrapolated distance, and the biased plug-in value that papers print."""
    real, generated = s.features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the protocol holds what it warns of, and the report shows it
        found = frechet_distance(real=real, generated=generated, protocol=s.feature_protocol, seed=s.seed)
    biased = plug_in(real=real, generated=generated)
    return {"frechet": found, "frechet_plug_in": _plain(biased, s, "plug-in Fréchet distance")}


def _kid(s: Subject) -> Found:
    real, generated = s.features
    return {"kernel": kernel_distance(real=real, generated=generated, protocol=s.feature_protocol, seed=s.seed)}


def _prdc(s: Subject) -> Found:
    real, generated = s.features
    return dict(prdc(real=real, generated=generated, protocol=s.feature_protocol)._asdict())


def _curve(s: Subject) -> Found:
    real, generated = s.features
    found = precision_recall_curve(real=real, generated=generated, protocol=s.feature_protocol, seed=s.seed)
    return {"f8": found.f8, "f1_8": found.f1_8}


def _memorisation(s: Subject) -> Found:
    real, generated = s.features
    found: Found = {}
    for name, test in (("copying", copying), ("authenticity", authenticity)):
        result = test(train=s.train_features, held_out=real, generated=generated, protocol=s.feature_protocol)
        found |= {name: result.estimate, f"{name}_p": _plain(result.p_value, s, f"p-value of {name}")}
    return found


def _unit(s: Subject, x: Tensor) -> Tensor:
    """Images in [0, 1], because metrics of pictures speak of a range."""
    levels = s.splits.spec.levels
    if len(s.splits.spec.shape) != 3 or levels is None:
        raise Unsupported("Only images over levels have a range to measure in.")
    return x.double() / (levels - 1)


def _spectrum(s: Subject) -> Found:
    real, generated = _unit(s, s.real[0]), _unit(s, s.generated)
    found = spectral_gap(real=real, generated=generated, protocol=s.protocol, seed=s.seed)
    return {"radial_gap": found.radial, "cosine_gap": found.cosine}


def _reconstruction(s: Subject) -> Found:
    s.model.require("reconstruct")
    x, y = s.real
    y = y if s.model.generative.reads_y else None
    with torch.no_grad(), evaluating(s.model):
        back = torch.cat([
            s.model.reconstruct(x[i : i + 256], condition=None if y is None else y[i : i + 256]).cpu()
            for i in range(0, len(x), 256)
        ])  # fmt: skip
    a, b = _unit(s, x), _unit(s, back)

    def mean(values: Tensor, metric: str) -> Estimate:
        error = float(values.std()) / len(values) ** 0.5
        return estimate(float(values.mean()), error, n=(len(values), 0), protocol=s.protocol, metric=metric)

    found = {"reconstruction_mae": mean(absolute_error(a, b), "mean absolute error")}
    ratio = psnr(a, b)
    if ratio.isfinite().all():  # an exact reconstruction has no noise
        found["reconstruction_psnr"] = mean(ratio, "PSNR, dB")
    window = min(11, (min(a.shape[2:]) - 1) // 2 * 2 + 1)  # odd, and no larger than the image
    similar = mean(ms_ssim(a, b, window=window), f"MS-SSIM, window {window}")
    return found | {"reconstruction_ms_ssim": similar}


def _probe(s: Subject) -> Found:
    s.model.require("features")
    train, target = examples(s.splits.train, _PROBED)
    x, y = s.real
    if target is None or y is None or not s.splits.spec.classes:
        raise Unsupported("A probe needs labels, and this data set has none.")
    if s.model.generative.reads_y:
        raise Unsupported("This model's representation is computed from the label, so a probe would only read it back.")
    a, b = s.represent(train, target), s.represent(x, y)
    protocol = {**s.protocol, "layers": "all", "noise": 0.0}
    return {
        "probe": probe(a, target, b, y, protocol=protocol, seed=s.seed),
        "probe_neighbours": probe(a, target, b, y, reader="neighbours", protocol=protocol, seed=s.seed),
    }


def _cost(s: Subject) -> Found:
    count = cost.parameters(s.model)
    exact = {"n": (0, 0), "protocol": s.protocol}
    found = {"parameters": estimate(count, 0.0, metric="parameters", **exact)}
    if not s.model.generative.can_sample:
        return found
    evaluations = s.model.generative.evaluations(**s.sampling)
    found["evaluations"] = estimate(evaluations, 0.0, metric="network evaluations per sample", **exact)
    timed = cost.sampling_speed(s.model, _TIMED, condition=s.conditions(_TIMED), protocol=s.protocol, **s.sampling)
    return found | timed


METRICS: dict[str, Callable[[Subject], Found]] = {
    "bits": _bits,
    "nats": _nats,
    "fd": _fd,
    "kid": _kid,
    "prdc": _prdc,
    "curve": _curve,
    "memorisation": _memorisation,
    "spectrum": _spectrum,
    "reconstruction": _reconstruction,
    "probe": _probe,
    "cost": _cost,
}


def measure(subject: Subject, metrics: Sequence[str] = tuple(METRICS)) -> dict[str, Estimate | str]:
    """Every estimate by name; where the model or the data cannot answer, the reason under the metric's name."""
    for name in metrics:
        choose(name, METRICS, "metric")
    found: dict[str, Estimate | str] = {}
    for name in metrics:
        try:
            found |= METRICS[name](subject)
        except Unsupported as reason:
            found[name] = str(reason)
    return found


def null(splits: Splits, extractor: Extractor, *, examples: int = 2000, seed: int = 0) -> NullCheck:
    """The Fréchet distance of one half of the test split from the other: zero must lie in its interval."""
    index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))[:examples]
    protocol = {"data": splits.name, "split": "test halves", **extractor.protocol}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return null_check(frechet_distance, extractor(splits.test[index].x.cpu()), seed=seed, protocol=protocol)
