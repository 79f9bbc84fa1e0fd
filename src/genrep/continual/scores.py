"""What is measured after each task, on all tasks seen, and what the lower-triangular matrices say.

R[i][j] is the score on task j after learning task i >= j.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.continual.strategy import Strategy
from genrep.contracts import Model, Unsupported
from genrep.data.splits import Splits
from genrep.evaluation.coverage import prdc
from genrep.evaluation.estimate import Estimate, estimate
from genrep.evaluation.features import Extractor
from genrep.evaluation.frechet import frechet_distance
from genrep.evaluation.measure import METRICS as MEASURED
from genrep.evaluation.subject import Subject
from genrep.naming import choose

Matrix = Sequence[Sequence[float]]  # row i has i + 1 entries
_GROUPS, _K = 20, 3
NEEDS = {
    "frechet": "sample",
    "precision": "sample",
    "recall": "sample",
    "bits": "log_likelihood",
    "accuracy": "classify",
    "channels": "sample",
}
LOWER_IS_BETTER = {
    "frechet": True, "channels": True, "bits": True, "precision": False, "recall": False, "accuracy": False,
}  # fmt: skip
_ONE_NUMBER = {"bits": "", "accuracy": "", "channels": "channels_pooled"}  # of what the metric finds; "": the first


class Protocol(NamedTuple):
    """How models are scored after a task."""

    extractor: Extractor
    metrics: tuple[str, ...] = ()  # () : all that the model can
    samples: int = 1000  # drawn for each task
    examples: int = 1000  # of the test split of each task, at most
    seed: int = 0


def applicable(model: Model, metrics: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics asked for, or all that the model can but `channels`, which is for calorimeters; Unsupported for one
    that it cannot.
    """
    for metric in metrics:
        model.require(NEEDS[choose(metric, NEEDS, "metric")])
    if metrics:
        return tuple(metrics)
    return tuple(metric for metric, need in NEEDS.items() if metric != "channels" and _can(model, need))


def _can(model: Model, capability: str) -> bool:
    try:
        model.require(capability)
    except Unsupported:
        return False
    return True


def frechet(real: Tensor, generated: Tensor, protocol: Mapping[str, Any], seed: int) -> Estimate:
    """The extrapolated distance, with fewer jackknife groups where a task has few test examples."""
    groups = min(_GROUPS, len(real) // 4 * 2, len(generated) // 4 * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of stands in the protocol
        return frechet_distance(real=real, generated=generated, groups=groups, protocol=protocol, seed=seed)


def neighbours(real: Tensor, generated: Tensor, protocol: Mapping[str, Any]) -> dict[str, Estimate]:
    """Improved precision and recall, k = 3 as published."""
    found = prdc(real=real, generated=generated, k=min(_K, len(real) - 1, len(generated) - 1), protocol=protocol)
    return {"precision": found.precision, "recall": found.recall}


def of_samples(
    real: Tensor, generated: Tensor, metrics: Sequence[str], protocol: Mapping[str, Any], seed: int
) -> dict[str, Estimate]:
    """Those of the metrics that compare features of samples and of test examples."""
    found: dict[str, Estimate] = {}
    if "frechet" in metrics:
        found["frechet"] = frechet(real, generated, protocol, seed)
    if {"precision", "recall"} & set(metrics):
        found |= {k: v for k, v in neighbours(real, generated, protocol).items() if k in metrics}
    return found


def score(
    strategy: Strategy, tasks: Sequence[Splits], how: Protocol
) -> tuple[list[dict[str, Estimate]], dict[str, Any]]:
    """Scores on each of the tasks seen, and on all of them together."""
    metrics = applicable(strategy.model_for(0), how.metrics)
    subjects = [_subject(strategy.model_for(t), task, how) for t, task in enumerate(tasks)]
    drawn = [NEEDS[m] == "sample" for m in metrics]
    if any(drawn) and not subjects[0].model.generative.reads_y and len({id(s.model) for s in subjects}) == 1:
        for subject in subjects[1:]:  # a model that is told nothing draws the same for every task
            subject.generated = subjects[0].generated
    each = [_each(subject, metrics, how) for subject in subjects]
    return each, _together(subjects, each, metrics, how)


def before(strategy: Strategy, task: int, splits: Splits, how: Protocol) -> dict[str, Estimate]:
    """Scores on a task that was not learnt yet, of the model that will stand for it."""
    model = strategy.model_for(task)
    return _each(_subject(model, splits, how), applicable(strategy.model_for(0), how.metrics), how)


def _subject(model: Model, task: Splits, how: Protocol) -> Subject:
    return Subject(model, task, how.extractor, samples=how.samples, examples=how.examples, seed=how.seed)


def _each(subject: Subject, metrics: Sequence[str], how: Protocol) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    if any(NEEDS[m] == "sample" for m in metrics):
        found |= of_samples(*subject.features, metrics, subject.feature_protocol, how.seed)
    for metric, name in _ONE_NUMBER.items():
        if metric in metrics:
            several = MEASURED[metric](subject)  # of real values, bits are nats
            found[metric] = several[name or next(iter(several))]
    return found


def _together(
    subjects: Sequence[Subject], each: Sequence[Mapping[str, Estimate]], metrics: Sequence[str], how: Protocol
) -> dict[str, Estimate | float]:
    sizes = [len(s.index) for s in subjects]
    found: dict[str, Estimate | float] = {
        m: sum(n * e[m].value for n, e in zip(sizes, each, strict=True)) / sum(sizes)
        for m in _ONE_NUMBER
        if m in metrics
    }
    if any(NEEDS[m] == "sample" for m in metrics):
        real = torch.cat([s.features[0] for s in subjects])
        share = [max(1, round(how.samples * n / sum(sizes))) for n in sizes]
        generated = [s.features[1][:n] for s, n in zip(subjects, share, strict=True)]
        told = subjects[0].model.generative.reads_y or len({id(s.model) for s in subjects}) > 1
        drawn = torch.cat(generated) if told else subjects[0].features[1]
        found |= of_samples(real, drawn, metrics, subjects[0].feature_protocol, how.seed)
    return found


# ---- what the matrices say -----------------------------------------------------------------------------------------


def final(matrix: Matrix) -> float:
    """Mean over the tasks after the last one, 1/T sum_j R[T-1][j]."""
    return _mean(matrix[-1])


def forgetting(matrix: Matrix, *, lower_is_better: bool) -> float:
    """How much worse tasks are at the end than they once were, mean over j < T - 1 of |best R[i][j] - R[T-1][j]|.

    Signed: positive where something was forgotten; the best is taken over j <= i < T - 1. 0 for one task.

    Reference: Chaudhry et al. (2018), "Riemannian walk", eq. 3.

    >>> forgetting([[0.9], [0.5, 0.8]], lower_is_better=False)
    0.4
    """
    sign, last = (-1.0 if lower_is_better else 1.0), matrix[-1]
    lost = [max(sign * row[j] for row in matrix[j:-1]) - sign * last[j] for j in range(len(last) - 1)]
    return _mean(lost)


def backward_transfer(matrix: Matrix, *, lower_is_better: bool) -> float:
    """Mean over j < T - 1 of R[T-1][j] - R[j][j], signed so that positive means that later tasks helped.

    Reference: Lopez-Paz & Ranzato (2017), eq. 3.
    """
    sign, last = (-1.0 if lower_is_better else 1.0), matrix[-1]
    return _mean([sign * (last[j] - matrix[j][j]) for j in range(len(last) - 1)])


def gain_over_alone(matrix: Matrix, alone: Sequence[float], *, lower_is_better: bool) -> float:
    """Mean over j > 0 of R[j][j] - alone[j], signed so that positive means that earlier tasks helped to learn task j.

    alone: scores of models that were trained on one task each, such as the diagonal of strategy `separate`.
    """
    sign = -1.0 if lower_is_better else 1.0
    if len(alone) < len(matrix):
        raise ValueError(f"Expected a score alone for each of the {len(matrix)} tasks, got {len(alone)}.")
    return _mean([sign * (matrix[j][j] - alone[j]) for j in range(1, len(matrix))])


def forward_transfer(before: Sequence[float], fresh: Sequence[float], *, lower_is_better: bool) -> float:
    """Mean over tasks j > 0 of R[j-1][j] - b[j], what a task is worth before it is learnt, beside a model of no task.

    before: R[j-1][j], fresh: b[j], both for j = 1 ... T - 1. Signed so that positive means that earlier tasks helped.

    Reference: Lopez-Paz & Ranzato (2017), eq. 4, their forward transfer.

    >>> forward_transfer([0.3, 0.2], [0.1, 0.1], lower_is_better=False)
    0.15
    """
    sign = -1.0 if lower_is_better else 1.0
    return _mean([sign * (r - b) for r, b in zip(before, fresh, strict=True)])


def over_seeds(summaries: Sequence[Mapping[str, float]], *, level: float = 0.95) -> dict[str, Estimate]:
    """The mean of each number over runs of different seeds, with Student's t interval; without one for a single run."""
    found: dict[str, Estimate] = {}
    for name in summaries[0]:
        values = torch.tensor([float(s[name]) for s in summaries], dtype=torch.float64)
        n = len(values)
        error = float(values.std() / n**0.5) if n > 1 else float("nan")
        found[name] = estimate(
            float(values.mean()), error, n=(n, n), degrees=max(n - 1, 1), level=level, replicates=values.tolist()
        )
    return found


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 12) if values else 0.0


def summary(matrix: Matrix, metric: str, before: Sequence[float] = (), fresh: Sequence[float] = ()) -> dict[str, float]:
    """What one matrix says; with scores of each task before it was learnt, the forward transfer, too."""
    lower = LOWER_IS_BETTER[metric]
    found = {
        "final": final(matrix),
        "forgetting": forgetting(matrix, lower_is_better=lower),
        "backward_transfer": backward_transfer(matrix, lower_is_better=lower),
    }
    if before:
        found["forward_transfer"] = forward_transfer(before, fresh, lower_is_better=lower)
    return found
