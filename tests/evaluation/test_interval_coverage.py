"""Do 95 % intervals hold the truth 95 % of the time?  A simulation with known answers."""

from __future__ import annotations

import pytest
import torch

from genrep.evaluation.distances import sliced_distance
from genrep.evaluation.estimate import Estimate
from genrep.evaluation.frechet import frechet_distance
from genrep.evaluation.kernel import kernel_distance

D, N, REPEATS = 16, 1000, 200
DIRECTIONS = 20
SHIFT = 0.1


def draw(kind: str, seed: int) -> torch.Tensor:
    """(N, D), mean zero, covariance the identity: normal, or Student's t with 9 degrees (a finite fourth moment)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, dtype=torch.float64, generator=g)
    if kind == "normal":
        return x
    chi = torch.randn(N, 9, dtype=torch.float64, generator=g).square().sum(1, keepdim=True)
    return x * (7 / chi).sqrt()  # variance of a t with 9 degrees: 9 / 7


def share(found: list[Estimate], truth: float) -> float:
    return sum(f.interval[0] <= truth <= f.interval[1] for f in found) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "student"])
def test_intervals_cover(kind):
    scale = 1.1
    pairs = [(draw(kind, 2 * s), draw(kind, 2 * s + 1) * scale + SHIFT) for s in range(REPEATS)]
    frechet = [frechet_distance(real=x, generated=y, seed=s) for s, (x, y) in enumerate(pairs)]
    truth = D * (SHIFT**2 + (scale - 1) ** 2)  # of proportional covariances
    kernel = [kernel_distance(real=x, generated=y, seed=s) for s, (x, y) in enumerate(pairs)]
    # the kernel distance has no closed form under Student's t: its mean over many repeats stands for it
    middle = sum(k.value for k in kernel) / REPEATS
    covered = {"frechet": share(frechet, truth), "kernel": share(kernel, middle)}
    # along u both are one shape, moved by u.s and stretched: W_2^2 = (u.s)^2 + (scale - 1)^2
    along = torch.nn.functional.normalize(
        torch.randn(DIRECTIONS, D, generator=torch.Generator().manual_seed(0)).double(), dim=1
    )
    exact = float((along.sum(1) * SHIFT).square().mean()) + (scale - 1) ** 2
    sliced = [sliced_distance(real=x, generated=y, directions=DIRECTIONS, seed=0) for x, y in pairs]
    covered["sliced"] = share(sliced, exact)
    print(kind, covered, "mean", sum(f.value for f in frechet) / REPEATS, "truth", truth)
    for value in covered.values():
        assert 0.91 <= value <= 1.0  # 0.95 less 2.6 binomial errors; the jackknife errs on the wide side
