"""Measure a model against held-out data: every metric by name, each with its error and its protocol."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genrep.contracts import Unsupported, evaluating, seeded
from genrep.data.splits import Splits
from genrep.evaluation import cost
from genrep.evaluation.annealed import Start, bidirectional
from genrep.evaluation.classification import accuracy, probabilities
from genrep.evaluation.coverage import prdc
from genrep.evaluation.criticism import dimensions, joint
from genrep.evaluation.curve import precision_recall_curve
from genrep.evaluation.entropies import three_entropies
from genrep.evaluation.estimate import Estimate, NullCheck, estimate, null_check
from genrep.evaluation.features import Extractor, examples
from genrep.evaluation.frechet import frechet_distance, plug_in
from genrep.evaluation.holes import find_holes
from genrep.evaluation.kernel import kernel_distance
from genrep.evaluation.memorisation import authenticity, copying
from genrep.evaluation.quality import calorimeter, inception, sinkhorn, sliced, spatial
from genrep.evaluation.representation import disentanglement, probe, representation
from genrep.evaluation.scores import absolute_error, ms_ssim, psnr
from genrep.evaluation.spectrum import spectral_gap
from genrep.evaluation.subject import Subject
from genrep.naming import choose

Found = dict[str, Estimate]
_TRAINING = 5000  # examples that a check of convergence reads
_TIMED = 64  # samples per batch when sampling is timed
_SIMULATED = 50  # examples on which annealing is checked from both sides


def _bits(
    s: Subject,
    *,
    method: str = "auto",
    draws: int | None = None,
    evaluations: int | None = None,
    temperatures: int = 500,
    leapfrog: int = 10,
    start: Start = "prior",
) -> Found:
    """Bits per dimension of masses over levels; nats of densities over real values.

    Args:
        method: One of the model's own (genrep models NAME lists them), annealed, or auto: the first of its own.
        draws: K importance weights, averaged bounds, points in the cell of a level, or chains; None: the method's own.
        evaluations: Of a chain's network for each example; None: a few, of which a bound is estimated without bias.
        temperatures: Of annealed importance sampling.
        leapfrog: Steps of a proposal in annealed importance sampling.
        start: Of annealed importance sampling: prior or posterior.
    """
    how: dict[str, Any] = {"temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    found = s.likelihood(method=method, draws=draws, evaluations=evaluations, **how)
    return {"bits" if found.measure == "mass" else "nats": found.estimate(s.protocol)}


def _nats(
    s: Subject,
    *,
    method: str = "auto",
    draws: int | None = None,
    evaluations: int | None = None,
    temperatures: int = 500,
    leapfrog: int = 10,
    start: Start = "prior",
) -> Found:
    """-log p(x) of a whole example in nats: of a mass, as papers print it for binary images, or of a density.

    The options are those of `bits`.
    """
    how: dict[str, Any] = {"temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    found = s.likelihood(method=method, draws=draws, evaluations=evaluations, **how)
    return {"nats": found.estimate(s.protocol, unit="nats")}


def _bidirectional(
    s: Subject, *, draws: int = 16, temperatures: int = 500, leapfrog: int = 10, start: Start = "prior"
) -> Found:
    """What annealed importance sampling is off by, at most and on average, in nats, on 50 examples the model draws.

    Args:
        draws: Chains.
        temperatures: Of annealed importance sampling.
        leapfrog: Steps of a proposal.
        start: The density it starts from: prior or posterior.
    """
    how: dict[str, Any] = {"temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    with seeded(s.seed):
        y = s.model.condition(s.conditions(_SIMULATED), _SIMULATED)
        found = bidirectional(s.model, _SIMULATED, condition=y, chains=draws, **how)
    gap = (found.upper - found.lower).double().cpu()
    error = float(gap.std()) / len(gap) ** 0.5
    stated = {**s.protocol, **how, "draws": draws, "split": "the model's own samples"}
    metric = "upper minus lower bound of log p(x), nats"
    return {"annealing_gap": estimate(float(gap.mean()), error, n=(0, len(gap)), protocol=stated, metric=metric)}


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


def _memorisation(s: Subject, *, cells: int = 1) -> Found:
    """Are samples closer to the training data than held-out data is?

    Args:
        cells: Of C_T, k-means clusters of the training data, so that copies of one mode do not hide behind another.
    """
    real, generated = s.features
    found: Found = {}
    for name, test in (("copying", partial(copying, cells=cells, seed=s.seed)), ("authenticity", authenticity)):
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


def _criticism(s: Subject, *, permutations: int = 500) -> Found:
    """Do samples and test examples differ in the code of the reference model, per dimension and jointly?

    Args:
        permutations: Of the joint test; its p-value is at least 1 / (1 + permutations).
    """
    reference = s.reference or s.extractor
    protocol = {**s.protocol, **reference.protocol}
    real, fake = s.features if s.reference is None else (reference(s.real[0]), reference(s.generated))
    each = dimensions(real=real, generated=fake, protocol=protocol)
    both = joint(real=real, generated=fake, permutations=permutations, seed=s.seed, protocol=protocol)

    def p(value: float, found: Estimate, metric: str) -> Estimate:
        return estimate(value, math.nan, n=found.n, protocol=protocol, metric=f"p-value of {metric}")

    return {
        "criticism_dimensions": each.rejected,
        "criticism_dimensions_p": p(each.p_value, each.rejected, "no dimension differing"),
        "criticism": both.distance,
        "criticism_p": p(both.p_value, both.distance, "the joint test"),
    }


def _accuracy(s: Subject) -> Found:
    """Of the model's own classifier."""
    s.model.require("classify")
    x, y = s.real
    assert y is not None
    found = accuracy(probabilities(s.model, x).argmax(1) == y, s.protocol)
    return {"accuracy": found}


def _cost(s: Subject) -> Found:
    count = cost.parameters(s.model)
    exact = {"n": (0, 0), "protocol": s.protocol}
    found = {"parameters": estimate(count, 0.0, metric="parameters", **exact)}
    found["training_speed"] = cost.training_speed(s.model, s.splits.train, protocol=s.protocol)
    batch = s.splits.train[torch.arange(min(8, len(s.splits.train)))]
    for name, flops in cost.floating_point_operations(s.model, batch, **s.sampling).items():
        found[f"{name}_flops"] = estimate(flops, 0.0, metric=f"floating-point operations, {name}", **exact)
    if not s.model.generative.can_sample:
        return found
    evaluations = s.model.generative.evaluations(**s.sampling)
    found["evaluations"] = estimate(evaluations, 0.0, metric="network evaluations per sample", **exact)
    cost.reset_peak_memory()
    timed = cost.sampling_speed(s.model, _TIMED, condition=s.conditions(_TIMED), protocol=s.protocol, **s.sampling)
    for where, size in cost.peak_memory().items():
        metric = f"peak memory while sampling, {where}, bytes"
        found[f"sampling_peak_{where}"] = estimate(size, 0.0, metric=metric, **exact)
    return found | timed


def _entropies(s: Subject) -> Found:
    """Whether a Gaussian VAE has converged, over training examples."""
    x, y = examples(s.splits.train, _TRAINING)
    y = y if s.model.generative.reads_y else None
    found = three_entropies(s.model, x, y, seed=s.seed, protocol={**s.protocol, "split": "train"})
    return {"elbo_train": found.bound, "three_entropies": found.total, "entropy_gap": found.gap}


def _holes(s: Subject) -> Found:
    found, _ = find_holes(s.model, s.splits, n=len(s.index), seed=s.seed)
    return {"hole_mass": found.mass, "jensen_shannon": found.divergence}


METRICS: dict[str, Callable[..., Found]] = {  # keyword-only parameters of each are its options
    "bits": _bits,
    "nats": _nats,
    "bidirectional": _bidirectional,
    "fd": _fd,
    "sfid": spatial,
    "kid": _kid,
    "sinkhorn": sinkhorn,
    "sliced": sliced,
    "channels": calorimeter,
    "inception": inception,
    "prdc": _prdc,
    "curve": _curve,
    "memorisation": _memorisation,
    "spectrum": _spectrum,
    "reconstruction": _reconstruction,
    "probe": probe,
    "representation": representation,
    "accuracy": _accuracy,
    "disentanglement": disentanglement,
    "criticism": _criticism,
    "cost": _cost,
    "entropies": _entropies,
    "holes": _holes,
}
_SELDOM = ("bidirectional", "disentanglement", "sinkhorn", "channels", "entropies", "holes")  # slow, or for few models
USUAL = tuple(name for name in METRICS if name not in _SELDOM)


def options_of(metric: str) -> dict[str, inspect.Parameter]:
    """The options of a metric by name."""
    parameters = inspect.signature(METRICS[metric], eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def measure(subject: Subject, metrics: Sequence[str] = USUAL, **options: Any) -> dict[str, Estimate | str]:
    """Every estimate by name; where the model or the data cannot answer, the reason under the metric's name.

    `options` go to each metric that has an option of that name; one that none has is a ValueError.
    """
    for name in metrics:
        choose(name, METRICS, "metric")
    for option in options:
        choose(option, {o for name in metrics for o in options_of(name)}, f"option of {', '.join(metrics)}")
    _check_annealing(metrics, options)
    found: dict[str, Estimate | str] = {}
    for name in metrics:
        try:
            found |= METRICS[name](subject, **{k: v for k, v in options.items() if k in options_of(name)})
        except Unsupported as reason:
            found[name] = str(reason)
    return found


def _check_annealing(metrics: Sequence[str], options: Mapping[str, Any]) -> None:
    """ValueError for options of annealed importance sampling where nothing is annealed."""
    given = [name for name in ("temperatures", "leapfrog", "start") if name in options]
    if given and options.get("method") != "annealed" and "bidirectional" not in metrics:
        raise ValueError(
            f"{', '.join(given)} are of annealed importance sampling: add method=annealed or the metric bidirectional."
        )


def null(splits: Splits, extractor: Extractor, *, examples: int = 2000, seed: int = 0) -> NullCheck:
    """The Fréchet distance of one half of the test split from the other: zero must lie in its interval."""
    index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))[:examples]
    protocol = {"data": splits.name, "split": "test halves", **extractor.protocol}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return null_check(frechet_distance, extractor(splits.test[index].x.cpu()), seed=seed, protocol=protocol)
