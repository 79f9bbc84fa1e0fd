"""Sliced, Cramér-Wold, MMD, energy and assignment distances against closed forms, integrals and other libraries."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.special import hyp1f1
from scipy.stats import energy_distance as scipy_energy
from scipy.stats import wasserstein_distance

from genrep.transport.cramer_wold import cramer_wold, cramer_wold_normal, kummer
from genrep.transport.exact import assignment
from genrep.transport.mmd import SCALES, energy_distance, mmd
from genrep.transport.sliced import max_sliced_wasserstein, sliced_wasserstein, wasserstein_1d

DISTANCES = {
    "sliced": lambda *t: sliced_wasserstein(*t, directions=torch.eye(3, dtype=torch.float64)),
    "max sliced": lambda *t: max_sliced_wasserstein(*t, directions=torch.eye(3, dtype=torch.float64), steps=3),
    "cramer wold": lambda *t: cramer_wold(*t, gamma=0.3),
    "imq": mmd,
    "rbf": lambda *t: mmd(*t, kernel="rbf"),
    "energy": energy_distance,
}


def pair(n=8, m=11, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=g, dtype=torch.float64), torch.randn(m, d, generator=g, dtype=torch.float64)
    return 0.7 * x + 0.5, y


def weights(n, seed=1):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


@pytest.mark.parametrize("name", DISTANCES)
def test_zero_at_equality_symmetric_positive_and_blind_to_order(name):
    f, (x, y), a, b = DISTANCES[name], pair(), weights(8), weights(11, 2)
    value = f(x, y, a, b)
    assert value > 1e-4
    assert abs(f(x, x.flip(0), a, a.flip(0))) < 1e-12
    torch.testing.assert_close(f(y, x, b, a), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(f(x.flip(0), y, a.flip(0), b), value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", DISTANCES)
def test_weights_count_copies_and_batches_are_members(name):
    f, (x, y) = DISTANCES[name], pair()
    copies = torch.tensor([1, 2, 3, 1, 0, 1, 1, 2])
    torch.testing.assert_close(f(x, y, copies.double()), f(x.repeat_interleave(copies, 0), y), rtol=1e-6, atol=1e-12)
    x2, y2 = pair(seed=5)
    together = f(torch.stack([x, x2]), torch.stack([y, y2]))
    torch.testing.assert_close(together, torch.stack([f(x, y), f(x2, y2)]), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", sorted(DISTANCES.keys() - {"max sliced"}))
def test_gradients_match_finite_differences(name):
    (x, y), a, b = pair(5, 6), weights(5), weights(6, 2)
    inputs = [t.requires_grad_() for t in (x, y, a, b)]
    assert torch.autograd.gradcheck(DISTANCES[name], inputs, atol=1e-7)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_one_dimension_is_the_integral_over_quantiles(p):
    (x, y), a, b = pair(d=1), weights(8), weights(11, 2)
    x, y = x[:, 0], y[:, 0]

    def quantile(values, w, q):
        order = values.argsort()
        return values[order][torch.searchsorted((w / w.sum())[order].cumsum(0), q).clamp_max(len(w) - 1)]

    q = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    expected = (quantile(x, a, q) - quantile(y, b, q)).abs().pow(p).mean()
    torch.testing.assert_close(wasserstein_1d(x, y, a, b, p=p), expected, rtol=1e-4, atol=0)


def test_one_dimension_agrees_with_scipy():
    (x, y), a, b = pair(d=1), weights(8), weights(11, 2)
    x, y = x[:, 0], y[:, 0]
    assert float(wasserstein_1d(x, y, a, b, p=1)) == pytest.approx(wasserstein_distance(x, y, a, b), rel=1e-12)
    ours = float(energy_distance(x[:, None], y[:, None], a, b))
    assert math.sqrt(ours) == pytest.approx(scipy_energy(x, y, a, b), rel=1e-10)


def test_one_dimension_uses_every_quantile_of_equal_sizes_and_of_weights():
    x, y = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same = torch.ones(50, dtype=torch.float64)
    torch.testing.assert_close(wasserstein_1d(x, y), wasserstein_1d(x, y, same, same), rtol=1e-12, atol=0)


def test_slices_of_a_translation():
    """W_2^2 along v of a translation by t is <v, t>^2: |t|^2 / D on average, |t|^2 at most."""
    x, _ = pair(50, d=4)
    t = torch.tensor([1.0, -2, 0.5, 1], dtype=torch.float64)
    torch.manual_seed(0)
    mean = sliced_wasserstein(x, x + t, directions=20_000)
    assert float(mean) == pytest.approx(float(t.square().sum() / 4), rel=0.03)
    assert float(max_sliced_wasserstein(x, x + t, directions=3)) == pytest.approx(float(t.square().sum()), rel=1e-9)


def test_max_sliced_gradient_is_that_at_the_maximum():
    x, _ = pair(20)
    t = torch.tensor([1.0, -2, 0.5], dtype=torch.float64)  # of |mean difference|^2, reached along t: 2 t / n
    y = x + t
    y.requires_grad_()
    (slope,) = torch.autograd.grad(max_sliced_wasserstein(x, y), y)
    torch.testing.assert_close(slope, (2 * t / 20).expand(20, 3), rtol=1e-6, atol=1e-9)


def test_max_sliced_finds_the_direction_that_differs():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 400, 10, generator=g, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(10, 10, generator=g, dtype=torch.float64))[0]
    x = (x * torch.tensor([4.0, *[1.0] * 9], dtype=torch.float64)) @ turned.T  # same means, one long axis
    torch.manual_seed(0)
    found = max_sliced_wasserstein(x, y, steps=30)
    along = wasserstein_1d(x @ turned[:, 0], y @ turned[:, 0])
    assert float(found) >= 0.98 * float(along)
    assert float(found) > 3 * float(sliced_wasserstein(x, y, directions=200))


@pytest.mark.parametrize("d", [1, 2])
def test_kummer_is_exact_in_one_and_two_dimensions(d):
    s = torch.logspace(-3, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(kummer(s, d), torch.from_numpy(hyp1f1(0.5, d / 2, -s.numpy())), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("d", [3, 8, 20, 64])
def test_kummer_in_more_dimensions_is_asymptotically_right(d):
    """Far apart, right to order 1 / d^2, as Gamma(d / 2) / Gamma((d - 1) / 2) s^(-1/2) demands; in between to 1 / d."""
    s = torch.logspace(-3, 5, 200, dtype=torch.float64)
    exact = torch.from_numpy(hyp1f1(0.5, d / 2, -s.numpy()))
    error = ((kummer(s, d) - exact) / exact).abs()
    limit = math.exp(math.lgamma(d / 2) - math.lgamma((d - 1) / 2)) * 1e-4
    assert abs(float(kummer(torch.tensor(1e8), d)) / limit - 1) < 0.25 / d**2
    assert float(error.max()) < 0.4 / d
    assert float(error[0]) < 1e-3


def test_cramer_wold_is_the_integral_over_projections():
    (x, y), gamma = pair(d=2), 0.2
    angle = torch.arange(64, dtype=torch.float64) * math.pi / 64
    directions = torch.stack([angle.cos(), angle.sin()])
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)

    def density(points):
        z = (grid[:, None, None] - points @ directions) ** 2 / (2 * gamma)
        return (-z).exp().mean(1) / math.sqrt(2 * math.pi * gamma)

    expected = (density(x) - density(y)).square().sum(0).mean() * (grid[1] - grid[0])
    torch.testing.assert_close(cramer_wold(x, y, gamma=gamma), expected, rtol=1e-8, atol=0)


def test_cramer_wold_to_the_normal_is_the_limit_of_samples():
    x, _ = pair(20, d=2)
    points = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(60, dtype=torch.float64) + 0.5) / 60)
    normal = torch.cartesian_prod(points, points)
    exact = cramer_wold_normal(x, gamma=0.2)
    torch.testing.assert_close(cramer_wold(x, normal, gamma=0.2), exact, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_is_its_definition(kernel, unbiased):
    x, y = pair(5, 6)

    def k(u, v):
        s = float((u - v).square().sum())
        widths = [2 * 3 * 0.8**2 * c for c in SCALES]
        return sum(w / (w + s) if kernel == "imq" else math.exp(-s / w) for w in widths)

    def within(z):
        pairs = [(i, j) for i, j in itertools.product(range(len(z)), repeat=2) if not unbiased or i != j]
        return sum(k(z[i], z[j]) for i, j in pairs) / len(pairs)

    cross = sum(k(u, v) for u in x for v in y) / 30
    got = mmd(x, y, kernel=kernel, std=0.8, unbiased=unbiased)
    assert float(got) == pytest.approx(within(x) + within(y) - 2 * cross, rel=1e-9)


def test_unbiased_estimates_average_to_zero_and_biased_ones_do_not():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2000, 10, 3, generator=g, dtype=torch.float64)
    for f in (mmd, energy_distance):
        free, biased = f(x, y, unbiased=True), f(x, y)
        assert abs(float(free.mean())) < 4 * float(free.std()) / math.sqrt(2000)
        assert float(biased.mean()) > 10 * float(biased.std()) / math.sqrt(2000)
        assert float(biased.min()) >= 0


def test_assignment_is_the_best_permutation():
    x, y = pair(6, 6)
    for p in (1, 2):
        costs = [
            float((x - y[list(order)]).norm(dim=1).pow(p).mean()) / p for order in itertools.permutations(range(6))
        ]
        assert float(assignment(x, y, p=p)) == pytest.approx(min(costs), rel=1e-12)
    assert torch.autograd.gradcheck(assignment, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("name", DISTANCES)
def test_float32_bfloat16_and_autocast(name):
    f = {
        "sliced": lambda *t: sliced_wasserstein(*t, directions=torch.eye(3)),
        "max sliced": lambda *t: max_sliced_wasserstein(*t, directions=torch.eye(3), steps=3),
    }.get(name, DISTANCES[name])
    x, y = (t.bfloat16() for t in pair(30, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = f(x, y)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), f(x.double(), y.double()), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: mmd(x, y, kernel="cubic"), "one of the kernels"),
        (lambda x, y: mmd(x, y, std=0.0), "std > 0"),
        (lambda x, y: mmd(x[:1], y, unbiased=True), "two points"),
        (lambda x, y: mmd(x * math.nan, y), "NaN"),
        (lambda x, y: cramer_wold(x, y, gamma=0.0), "gamma > 0"),
        (lambda x, y: sliced_wasserstein(x, y, p=0.5), "p >= 1"),
        (lambda x, y: sliced_wasserstein(x, y, directions=0), "at least one direction"),
        (lambda x, y: sliced_wasserstein(x, y, directions=torch.ones(2, 2)), "directions of shape"),
        (lambda x, y: energy_distance(x, y[:, :2]), "one width"),
        (lambda x, y: energy_distance(x[:0], y), "at least one point"),
        (lambda x, y: assignment(x, y), "one size"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pair())
