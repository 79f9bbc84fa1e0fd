from __future__ import annotations

import pytest
import torch

from genrep.evaluation.kernel import (
    _members,
    _subset_distances,
    cubic,
    group_sums,
    kernel_distance,
    kernel_distance_subsets,
    mmd,
)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def direct(x: torch.Tensor, y: torch.Tensor, k) -> float:
    n, m = len(x), len(y)
    xx, yy = (sum(float(k(a[i], a[j])) for i in range(len(a)) for j in range(len(a)) if i != j) for a in (x, y))
    xy = sum(float(k(a, b)) for a in x for b in y)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


KERNELS = {
    "cubic": lambda a, b: (a @ b / len(a) + 1) ** 3,
    "gaussian": lambda a, b: (-(a - b).square().sum() / (2 * 1.5**2)).exp(),
    "inverse multiquadric": lambda a, b: (1 + (a - b).square().sum() / 1.5**2) ** -0.5,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_replicates_are_the_double_sums(kernel):
    from genrep.evaluation.arrays import group_of

    x, y = normal(13, 3, 0), normal(10, 3, 1) + 0.5
    found = mmd(real=x, generated=y, kernel=kernel, bandwidth=1.5, groups=4, seed=2)
    assert found.value == pytest.approx(direct(x, y, KERNELS[kernel]), rel=1e-10)
    keep_x, keep_y = group_of(13, 4, 2) != 1, group_of(10, 4, 3) != 1
    assert found.replicates[1] == pytest.approx(direct(x[keep_x], y[keep_y], KERNELS[kernel]), rel=1e-10)


def test_blocks_do_not_change_the_value():
    x, y = normal(50, 4, 0), normal(37, 4, 1)
    gx, gy = torch.arange(50) % 5, torch.arange(37) % 5
    for a, b, ga, gb in ((x, x, gx, gx), (x, y, gx, gy)):
        torch.testing.assert_close(group_sums(a, b, ga, gb, cubic(4), 7), group_sums(a, b, ga, gb, cubic(4), 64))


def test_gaussian_kernel_between_gaussians_has_a_closed_form():
    """E exp(-|x - y|^2 / 2 h^2), x - y ~ N(s, 2): h / sqrt(h^2 + 2) exp(-s^2 / 2 (h^2 + 2)) per dimension."""
    h, s, d = 1.0, 1.0, 2
    k = lambda shift: (h**2 / (h**2 + 2)) ** (d / 2) * torch.tensor(-d * shift**2 / (2 * (h**2 + 2))).exp().item()  # noqa: E731
    truth = 2 * k(0.0) - 2 * k(s)
    found = mmd(real=normal(3000, d, 1), generated=normal(3000, d, 2) + s, bandwidth=h)
    assert abs(found.value - truth) < 3 * found.standard_error
    assert found.standard_error < 0.05 * truth


def test_unbiased_at_small_n():
    values = [kernel_distance(real=normal(40, 5, s), generated=normal(40, 5, 1000 + s)).value for s in range(200)]
    v = torch.tensor(values)
    assert v.min() < 0
    assert abs(v.mean()) < 3 * v.std() / 200**0.5


def test_standard_errors_match_the_spread_over_repeats():
    for f, how in ((kernel_distance, {}), (kernel_distance_subsets, {"subsets": 40, "size": 50})):
        found = [f(real=normal(400, 4, s), generated=normal(400, 4, 500 + s) + 0.5, **how) for s in range(40)]
        spread = torch.tensor([f.value for f in found]).std()
        stated = torch.tensor([f.standard_error for f in found]).mean()
        assert 0.7 < float(stated / spread) < 1.4


def test_subsets_of_everything_are_the_u_statistic():
    x, y = normal(60, 4, 1), normal(60, 4, 2)
    found = kernel_distance_subsets(real=x, generated=y, subsets=2, size=60)
    assert found.value == pytest.approx(kernel_distance(real=x, generated=y).value, rel=1e-10)


def rectified(n: int, d: int, seed: int, scale: float) -> torch.Tensor:
    """Like pooled activations: at least zero, of one sign, so that kernel values are large beside their difference."""
    return (normal(n, d, seed) * scale + 0.3).relu()


def test_float32_agrees_with_float64_to_a_millionth():
    x, y = rectified(1500, 256, 0, 1.0), rectified(1500, 256, 1, 1.05)
    for f, how in ((kernel_distance, {}), (kernel_distance_subsets, {"subsets": 20, "size": 300})):
        exact, found = f(real=x, generated=y, **how).value, f(real=x.float(), generated=y.float(), **how).value
        assert found == pytest.approx(exact, rel=1e-6)


def test_subsets_that_share_blocks_are_as_unbiased_and_no_noisier_than_independent_ones():
    """The mean over subsets drawn within blocks against subsets drawn from all rows, over repeats."""
    truth = kernel_distance(real=normal(2000, 4, 1), generated=normal(2000, 4, 2) + 0.5).value
    ones = torch.ones(40, 1, dtype=torch.float64)
    shared, drawn = [], []
    for s in range(60):
        x, y = normal(400, 4, 2 * s), normal(400, 4, 2 * s + 1) + 0.5
        shared.append(kernel_distance_subsets(real=x, generated=y, subsets=40, size=40, seed=s).value)
        g = torch.Generator().manual_seed(s)
        pick = [(torch.randperm(400, generator=g)[:40], torch.randperm(400, generator=g)[:40]) for _ in range(40)]
        drawn.append(sum(float(_subset_distances(x[i], y[j], ones, ones, cubic(4))) for i, j in pick) / 40)
    a, b = torch.tensor(shared), torch.tensor(drawn)
    assert abs(float(a.mean()) - truth) < 4 * float(a.std()) / 60**0.5
    assert float(a.std() / b.std()) < 1.15


def test_every_subset_value_is_that_of_its_rows():
    x, y = normal(30, 3, 0), normal(25, 3, 1)
    g = torch.Generator().manual_seed(0)
    a, b = _members(30, 8, 3, g), _members(25, 8, 3, g)
    found = _subset_distances(x, y, a, b, cubic(3))
    truth = [direct(x[a[:, s] == 1], y[b[:, s] == 1], KERNELS["cubic"]) for s in range(3)]
    assert found.tolist() == pytest.approx(truth, rel=1e-10)


def test_bad_options():
    x = normal(60, 4, 1)
    with pytest.raises(ValueError, match="cubic, gaussian"):
        mmd(real=x, generated=x, kernel="linear")
    with pytest.raises(ValueError, match="pass bandwidth"):
        mmd(real=torch.zeros(60, 2), generated=x[:, :2])
    with pytest.raises(ValueError, match="smaller size"):
        kernel_distance_subsets(real=x, generated=x)
    with pytest.raises(ValueError, match="at least 2 subsets"):
        kernel_distance_subsets(real=x, generated=x, subsets=1, size=10)
