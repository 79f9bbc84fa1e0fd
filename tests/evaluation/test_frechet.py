from __future__ import annotations

import warnings

import pytest
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_info

from genrep.evaluation import linear
from genrep.evaluation.estimate import difference
from genrep.evaluation.frechet import Gaussian, between, frechet_distance, plug_in


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(mean: torch.Tensor, covariance: torch.Tensor, n: int = 400) -> torch.Tensor:
    """A sample with exactly these moments."""
    x = normal(n, len(mean), 0)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_commuting_gaussians_have_a_closed_form():
    a, b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.1, 0.5]).double()
    shift = torch.tensor([1.0, -2.0, 0.0]).double()
    truth = float((a - b).square().sum() + shift.square().sum())
    zero = torch.zeros(3, dtype=torch.float64)
    assert between(Gaussian(zero, a.diag()), Gaussian(shift, b.diag())) == pytest.approx(truth, rel=1e-12)
    found = plug_in(real=exact(zero, a.square().diag()), generated=exact(shift, b.square().diag()))
    assert found == pytest.approx(truth, rel=1e-10)


def test_agrees_with_a_matrix_square_root():
    x, y = normal(300, 6, 1) @ normal(6, 6, 2), normal(200, 6, 3) @ normal(6, 6, 4) + 0.3
    s, t = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    truth = float((x.mean(0) - y.mean(0)).square().sum()) + (s + t - 2 * sqrtm(s @ t)).trace().real
    assert plug_in(real=x, generated=y) == pytest.approx(truth, rel=1e-9)
    assert plug_in(real=y, generated=x) == pytest.approx(truth, rel=1e-9)  # symmetric
    assert plug_in(real=3 * x, generated=3 * y) == pytest.approx(9 * truth, rel=1e-9)
    assert plug_in(real=x.flip(0), generated=y) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("n", [5, 40])
def test_fewer_samples_than_features_agree_with_the_padded_route(n):
    """d = 60 features that live in n - 1 dimensions: the same distance in coordinates of their span."""
    x, y = normal(n, 60, 5), normal(2 * n, 60, 6)
    span = torch.linalg.qr(torch.cat([x, y]).T).Q  # (60, min(60, 3 n)): an isometry of all rows
    # centred rows leave a direction without variance: its eigenvalue is rounding, 2e-16 of at most 17, and enters as
    # twice its root, 1.2e-7, in either route
    found, expected = plug_in(real=x, generated=y), plug_in(real=x @ span, generated=y @ span)
    assert found == pytest.approx(expected, rel=0, abs=2.4e-7)
    assert plug_in(real=x, generated=x.clone()) == pytest.approx(0, abs=1e-5)


def test_two_point_masses_and_constant_features():
    x, y = torch.zeros(50, 3), torch.tensor([3.0, 4.0, 0.0]).expand(60, 3)
    assert plug_in(real=x, generated=y) == 25.0
    found = frechet_distance(real=x, generated=y)
    assert (found.value, found.standard_error) == pytest.approx((25.0, 0.0))
    a, b = normal(100, 4, 7), normal(100, 4, 8)
    a[:, 2], b[:, 2] = 1.0, 3.0  # one constant feature: only its mean counts
    keep = [0, 1, 3]
    assert plug_in(real=a, generated=b) == pytest.approx(plug_in(real=a[:, keep], generated=b[:, keep]) + 4, rel=1e-9)


def test_extrapolation_removes_the_bias_and_the_interval_holds_the_truth():
    d, n, shift = 32, 1000, 0.2 / 32**0.5
    truth = shift**2 * d
    plug, found = [], []
    for seed in range(6):
        x, y = normal(n, d, 10 + seed), normal(n, d, 50 + seed) + shift
        plug.append(plug_in(real=x, generated=y))
        found.append(frechet_distance(real=x, generated=y, seed=seed))
    assert min(plug) > 5 * truth  # the plug-in is all bias here
    assert abs(sum(f.value for f in found) / 6 - truth) < 0.03
    assert sum(f.interval[0] <= truth <= f.interval[1] for f in found) >= 5


def test_replicates_are_what_recomputing_without_a_group_gives():
    """The moments that are reused give the same as a fresh estimate of the rows that are left."""
    from genrep.evaluation.arrays import group_of
    from genrep.evaluation.frechet import extrapolated

    x, y = normal(203, 5, 1), normal(160, 5, 2) * 1.3
    found = frechet_distance(real=x, generated=y, groups=10, seed=3)
    gx, gy = group_of(203, 10, 3), group_of(160, 10, 4)
    for g in range(10):
        masks = [
            (gx != g, gy != g),
            ((gx != g) & (gx < 5), (gy != g) & (gy < 5)),
            ((gx != g) & (gx >= 5), (gy != g) & (gy >= 5)),
        ]
        whole, first, second = (plug_in(real=x[a], generated=y[b]) for a, b in masks)
        inverse = [1 / int(a.sum()) + 1 / int(b.sum()) for a, b in masks]
        truth = extrapolated(whole, (first, second), (inverse[0], inverse[1], inverse[2]))
        assert found.replicates[g] == pytest.approx(truth, rel=1e-8)


def test_few_samples_warn_and_say_so_in_the_protocol():
    with pytest.warns(UserWarning, match="60 samples for 40 features"):
        found = frechet_distance(real=normal(60, 40, 1), generated=normal(90, 40, 2))
    assert "60 samples" in found.protocol["warning"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "warning" not in frechet_distance(real=normal(80, 40, 1), generated=normal(90, 40, 2)).protocol


def test_two_models_against_the_same_data_are_compared_in_pairs():
    x = normal(1000, 8, 1)
    near, far = (
        frechet_distance(real=x, generated=normal(1000, 8, 2 + i) + s, protocol={"model": s})
        for i, s in enumerate((0.1, 0.4))
    )
    gap = difference(far, near)
    assert gap.interval[0] < 8 * (0.16 - 0.01) < gap.interval[1]
    assert gap.interval[0] > 0


def test_groups_are_checked():
    with pytest.raises(ValueError, match="even number of groups"):
        frechet_distance(real=normal(100, 2, 0), generated=normal(100, 2, 1), groups=5)


def test_small_matrices_take_one_thread_and_leave_the_others_as_they_were():
    def threads():
        return {t["filepath"]: t["num_threads"] for t in threadpool_info() if t["user_api"] == "blas"}

    before = threads()
    with linear._threads(64**3):
        assert set(threads().values()) == {1}
    assert threads() == before
    with linear._threads(2048**3):
        assert threads() == before
    x = normal(50, 20, 0)
    assert torch.allclose(linear.product(x.T, x), x.T @ x, rtol=1e-13, atol=1e-13)
    assert torch.allclose(linear.eigenvalues(x.T @ x), torch.linalg.eigvalsh(x.T @ x), rtol=1e-12, atol=1e-12)
    assert threads() == before
