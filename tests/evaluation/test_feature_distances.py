"""Transport distances of features: closed forms, no bias for equal sets, symmetry, scale."""

from __future__ import annotations

import pytest
import torch

from genrep.evaluation.distances import extrapolated_distance, sinkhorn_distance, sliced_distance
from genrep.evaluation.estimate import null_check


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_distance_with_bias_c_over_n_is_extrapolated_exactly():
    """D = 3 + 2 (1/n + 1/m) has the limit 3, and so has every replicate."""
    value, replicates = extrapolated_distance(
        lambda a, b: 3 + 2 * (1 / len(a) + 1 / len(b)), normal(103, 2, 0), normal(86, 2, 1), groups=10, seed=0
    )
    assert value == pytest.approx(3, abs=1e-12)
    assert replicates == pytest.approx([3.0] * 10, abs=1e-12)


@pytest.mark.parametrize("metric", [sinkhorn_distance, sliced_distance])
def test_equal_distributions_are_not_told_apart_and_a_shift_is(metric):
    x = normal(800, 8, 0)
    assert null_check(metric, x).passed
    assert metric(real=x, generated=normal(800, 8, 1) + 0.5).interval[0] > 0


def test_sliced_distance_between_gaussians_has_a_closed_form():
    """Along u, W_2^2 of N(0, 1) and N(u.s, c^2) is (u.s)^2 + (c - 1)^2; the mean of (u.s)^2 over all u is |s|^2 / d."""
    found = sliced_distance(real=normal(1000, 3, 0), generated=1.3 * normal(1000, 3, 1) + 0.4, directions=200)
    assert abs(found.value - (0.4**2 + 0.3**2)) < 3 * found.standard_error + 0.03
    masses = sliced_distance(real=torch.zeros(40, 2), generated=torch.tensor([3.0, 4.0]).expand(40, 2), directions=500)
    assert masses.value == pytest.approx(25 / 2, rel=0.1)  # two point masses: |s|^2 / d
    assert masses.standard_error == pytest.approx(0, abs=1e-5)


def test_sinkhorn_of_a_translation_and_of_two_point_masses():
    x = normal(200, 3, 0)
    moved = x + torch.tensor([1.0, 2.0, 2.0])
    assert sinkhorn_distance(real=x, generated=moved, seed=0, blur=0.5).value == pytest.approx(4.5, abs=0.6)
    point = sinkhorn_distance(real=torch.zeros(40, 2), generated=torch.tensor([3.0, 4.0]).expand(40, 2), blur=1.0)
    assert point.value == pytest.approx(12.5, rel=1e-4)


@pytest.mark.parametrize("metric", [sinkhorn_distance, sliced_distance])
def test_order_and_scale(metric):
    x, y = normal(200, 4, 0), 1.2 * normal(150, 4, 1) + 0.3
    found = metric(real=x, generated=y)
    assert metric(real=3 * x, generated=3 * y).value == pytest.approx(9 * found.value, rel=1e-4)
    shuffled = metric(real=x, generated=y.flip(0))  # other halves, so another extrapolation of the same distance
    assert abs(shuffled.value - found.value) < 2 * found.standard_error
    assert found.protocol["metric"] in ("sinkhorn", "sliced wasserstein")
    with pytest.raises(ValueError, match="row 3"):
        metric(real=x, generated=torch.where(torch.arange(150)[:, None] == 3, torch.nan, y))
    with pytest.raises(ValueError, match="even number of groups"):
        metric(real=x, generated=y, groups=7)


def test_bad_options():
    x = normal(50, 2, 0)
    with pytest.raises(ValueError, match="blur above zero"):
        sinkhorn_distance(real=x, generated=x, blur=0)
    with pytest.raises(ValueError, match="one direction"):
        sliced_distance(real=x, generated=x, directions=0)
