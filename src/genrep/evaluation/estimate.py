"""A measured number and what it takes to believe it: error, interval, sample sizes, protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

NAMES_MODEL = frozenset({"model", "run", "checkpoint"})  # protocol keys that may differ between two compared results


class Estimate(NamedTuple):
    """A value with its standard error, interval (low, high, level), sample sizes (real, generated) and protocol.

    `replicates` are jackknife replicates; two results that share them are compared pairwise.
    """

    value: float
    standard_error: float
    interval: tuple[float, float, float]
    n: tuple[int, int]
    protocol: dict[str, Any]
    replicates: tuple[float, ...] = ()

    def asdict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; an unknown error or bound is None."""

        def number(x: float) -> float | None:
            return x if math.isfinite(x) else None

        low, high, level = self.interval
        return {
            "value": number(self.value),
            "standard_error": number(self.standard_error),
            "interval": {"low": number(low), "high": number(high), "level": level},
            "n": {"real": self.n[0], "generated": self.n[1]},
            "protocol": dict(self.protocol),
            "replicates": list(self.replicates),
        }


def estimate(
    value: float,
    standard_error: float,
    *,
    n: tuple[int, int],
    protocol: Mapping[str, Any] | None = None,
    degrees: float = math.inf,
    level: float = 0.95,
    replicates: Sequence[float] = (),
    **stated: Any,
) -> Estimate:
    """The interval value +- t_{(1 + level)/2} standard_error, with Student's t of `degrees` degrees of freedom.

    `stated`: what the metric itself adds to the caller's protocol (its name, estimator, seed). The version is added.

    >>> tuple(round(x, 3) for x in estimate(1.0, 0.1, n=(10, 10)).interval)
    (0.804, 1.196, 0.95)
    """
    half = standard_error * float(stats.t.ppf((1 + level) / 2, degrees))
    return Estimate(
        float(value),
        float(standard_error),
        (float(value - half), float(value + half), level),
        n,
        {**(protocol or {}), **stated, "version": _version()},
        tuple(float(r) for r in replicates),
    )


def proportion(
    share: float,
    count: int,
    *,
    n: tuple[int, int],
    protocol: Mapping[str, Any] | None = None,
    level: float = 0.95,
    **stated: Any,
) -> Estimate:
    """A share p of `count` independent cases, with the binomial standard error sqrt(p (1 - p) / N).

    The interval is Wilson's (1927): (p + z^2 / 2N -+ z sqrt(p (1 - p) / N + z^2 / 4N^2)) / (1 + z^2 / N), the p that a
    test of size 1 - level would not reject. It stays inside [0, 1], and is no point where all cases agree.

    >>> tuple(round(x, 3) for x in proportion(1.0, 10, n=(10, 0)).interval)
    (0.722, 1.0, 0.95)
    """
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    middle, scale = share + z2 / (2 * count), 1 + z2 / count
    half = math.sqrt(z2 * share * (1 - share) / count + (z2 / (2 * count)) ** 2)
    plain = estimate(
        share, math.sqrt(share * (1 - share) / count), n=n, protocol=protocol, level=level, interval="Wilson", **stated
    )
    return plain._replace(interval=((middle - half) / scale, (middle + half) / scale, level))


def _version() -> str:
    try:
        return metadata.version("genrep")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "source"


def jackknifed(value: float, replicates: Sequence[float], **how: Any) -> Estimate:
    """Delete-group jackknife: se^2 = (G - 1)/G sum_g (r_g - mean r)^2, interval from Student's t with G - 1 degrees.

    `value` is not moved by the jackknife's own bias correction. Reference: Shao & Tu (1995), section 2.3.

    >>> x = [1.0, 2.0, 4.0]  # of a mean, the jackknife gives the usual standard error s / sqrt(n)
    >>> round(jackknifed(sum(x) / 3, [3.0, 2.5, 1.5], n=(3, 0)).standard_error, 6)
    0.881917
    """
    r = torch.tensor(replicates, dtype=torch.float64)
    g = len(r)
    error = math.sqrt((g - 1) / g * float(((r - r.mean()) ** 2).sum()))
    return estimate(value, error, degrees=g - 1, replicates=replicates, **how)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b, paired over jackknife replicates where both have them, otherwise as of independent results.

    Raises ValueError, naming the keys, when the protocols differ in anything but the model.
    """
    keys = (a.protocol.keys() | b.protocol.keys()) - NAMES_MODEL
    differing = [
        k for k in sorted(keys) if k not in a.protocol or k not in b.protocol or a.protocol[k] != b.protocol[k]
    ]
    differing += ["n"] if a.n != b.n else []
    differing += ["level"] if a.interval[2] != b.interval[2] else []
    if differing:
        raise ValueError(
            f"Two results compare only under one protocol; these differ in {differing}. Measure both alike."
        )
    names = {k: (a.protocol.get(k), b.protocol.get(k)) for k in sorted(NAMES_MODEL & (a.protocol.keys() | b.protocol))}
    shared = {k: v for k, v in a.protocol.items() if k not in NAMES_MODEL and k != "version"}
    how: dict[str, Any] = {"n": a.n, "protocol": {**shared, **names}, "level": a.interval[2]}
    if a.replicates and len(a.replicates) == len(b.replicates):
        return jackknifed(a.value - b.value, [x - y for x, y in zip(a.replicates, b.replicates, strict=True)], **how)
    return estimate(a.value - b.value, math.hypot(a.standard_error, b.standard_error), **how)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction: sorted, p_(i) times (m - i), made monotone (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order, adjusted, largest = sorted(range(len(p_values)), key=lambda i: p_values[i]), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


class NullCheck(NamedTuple):
    """A distance between two halves of the real data, and whether zero lies in its interval."""

    estimate: Estimate
    passed: bool


def null_check(metric: Callable[..., Estimate], real: Tensor, *, seed: int = 0, **how: Any) -> NullCheck:
    """Real half against real half: a distance whose interval misses zero here is not to be believed.

    `metric` is called as metric(real=, generated=, **how); rows are shuffled with `seed` before they are split.
    """
    if len(real) < 4:
        raise ValueError(f"Expected at least 4 rows to split in halves, got {len(real)}.")
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed)).to(real.device)
    half = len(real) // 2
    found = metric(real=real[order[:half]], generated=real[order[half : 2 * half]], **how)
    low, high, _ = found.interval
    return NullCheck(found, low <= 0 <= high)
