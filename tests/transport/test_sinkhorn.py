"""Sinkhorn divergence against closed forms, POT, GeomLoss, exact assignment and finite differences."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from genrep.transport.exact import assignment
from genrep.transport.sinkhorn import self_term, sinkhorn, sinkhorn_divergence

TIGHT = {"tolerance": 1e-10}


def pair(n=30, m=40, d=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = 0.8 * torch.randn(n, d, generator=g, dtype=torch.float64) + 0.3
    y = torch.randn(m, d, generator=g, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def weights(n, seed=1, dtype=torch.float64):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.1


def entropic(cost, a, b, eps, iterations=20_000):
    """OT_eps by the textbook loop in the log domain: the slow oracle."""
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(iterations):
        f = -eps * torch.logsumexp((g - cost) / eps + b.log(), 1)
        new = -eps * torch.logsumexp((f[:, None] - cost) / eps + a.log()[:, None], 0)
        if (new - g).abs().max() < 1e-13:
            break
        g = new
    return a @ f + b @ g


def plain(x, y, a, b, p, blur):
    cost = lambda u, v: torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist").pow(p) / p  # noqa: E731
    a, b = a / a.sum(), b / b.sum()
    own = entropic(cost(x, x), a, a, blur**p) + entropic(cost(y, y), b, b, blur**p)
    return entropic(cost(x, y), a, b, blur**p) - own / 2


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [0.3, 1.0, 5.0])
def test_agrees_with_the_textbook_iteration(p, blur):
    (x, y), a, b = pair(), weights(30), weights(40, 2)
    got = sinkhorn(x, y, a, b, p=p, blur=blur, **TIGHT)
    torch.testing.assert_close(got.value, plain(x, y, a, b, p, blur), rtol=1e-8, atol=1e-9)
    assert got.marginal_error <= 1e-10


@pytest.mark.parametrize("p", [1, 2])
def test_agrees_with_exact_transport_as_blur_vanishes(p):
    ot = pytest.importorskip("ot")
    (x, y), a, b = pair(), weights(30), weights(40, 2)
    cost = (torch.cdist(x, y).pow(p) / p).numpy()
    exact = ot.emd2((a / a.sum()).numpy(), (b / b.sum()).numpy(), cost)
    near = [float(sinkhorn(x, y, a, b, p=p, blur=r ** (1 / p), **TIGHT).value) for r in (1e-2, 1e-3)]
    assert abs(near[1] - exact) < 2e-3 * exact
    assert abs(near[1] - exact) < abs(near[0] - exact)


def test_agrees_with_assignment_as_blur_vanishes():
    x, y = pair(40, 40)
    torch.testing.assert_close(sinkhorn(x, y, blur=0.01, **TIGHT).value, assignment(x, y), rtol=1e-4, atol=0)


@pytest.mark.filterwarnings("default")
def test_agrees_with_geomloss():
    geomloss = pytest.importorskip("geomloss")
    x, y = pair(50, 60)
    for p in (1, 2):
        rival = geomloss.SamplesLoss("sinkhorn", p=p, blur=1.0, scaling=0.99, backend="tensorized")(x, y)
        torch.testing.assert_close(sinkhorn(x, y, p=p, blur=1.0, **TIGHT).value, rival, rtol=2e-3, atol=0)


def test_becomes_the_difference_of_the_means_as_blur_grows():
    x, y = pair()
    expected = (x.mean(0) - y.mean(0)).square().sum() / 2
    torch.testing.assert_close(sinkhorn(x, y, blur=1e3, **TIGHT).value, expected, rtol=1e-5, atol=0)


def test_p_one_becomes_half_the_energy_distance_as_blur_grows():
    from genrep.transport.mmd import energy_distance

    x, y = pair()
    got = sinkhorn(x, y, p=1, blur=1e4, **TIGHT).value
    torch.testing.assert_close(got, energy_distance(x, y) / 2, rtol=1e-3, atol=0)


@pytest.mark.parametrize("blur", [0.05, 0.5, 5.0])
def test_a_translation_costs_half_its_square(blur):
    x, _ = pair(64)
    t = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(x, x + t, blur=blur, **TIGHT).value, t.square().sum() / 2, rtol=1e-9, atol=1e-9)


def test_gaussians_on_a_grid_match_their_closed_form():
    """N(0, s^2) and N(m, t^2) in one dimension (Janati et al., 2020, theorem 1, with this cost), by quadrature."""
    grid = torch.linspace(-9, 9, 400, dtype=torch.float64)[:, None]
    s, t, m, eps = 0.8, 1.3, 1.0, 1.0
    density = lambda mean, std: (-0.5 * ((grid[:, 0] - mean) / std) ** 2).exp()  # noqa: E731

    def entropic_gaussian(u, v):
        k = math.sqrt(4 * u**2 * v**2 + eps**2)  # cost |x - y|^2 / 2, KL relative to the product
        return 0.5 * (u**2 + v**2) - 0.5 * (k - eps * math.log(k + eps) + eps * math.log(2 * eps) - eps)

    expected = 0.5 * m**2 + entropic_gaussian(s, t) - (entropic_gaussian(s, s) + entropic_gaussian(t, t)) / 2
    got = sinkhorn(grid, grid, density(0, s), density(m, t), blur=math.sqrt(eps), **TIGHT).value
    assert float(got) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [0.3, 2.0])
def test_gradients_match_finite_differences(p, blur):
    (x, y), a, b = pair(6, 7), weights(6), weights(7, 2)
    inputs = [t.clone().requires_grad_() for t in (x, y, a, b)]
    value = lambda *args: sinkhorn(*args, p=p, blur=blur, tolerance=1e-12).value  # noqa: E731
    assert torch.autograd.gradcheck(value, inputs, eps=1e-5, atol=1e-7, rtol=1e-5)


def test_second_derivatives_are_refused():
    x, y = pair(5, 5)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(sinkhorn_divergence(x, y, blur=1.0), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        slope.square().sum().backward()


@pytest.mark.parametrize("blur", [0.1, 1.0])
def test_is_zero_at_equality_and_positive_elsewhere(blur):
    x, y = pair()
    x.requires_grad_()
    same = sinkhorn(x, x.detach().flip(0), blur=blur, tolerance=1e-12).value
    assert abs(same.item()) < 1e-9
    assert torch.autograd.grad(same, x)[0].abs().max() < 1e-9
    for shift in (1e-3, 1e-1):
        assert sinkhorn(x, x.detach() * (1 + shift), blur=blur, **TIGHT).value.item() > 0
    assert sinkhorn(x, y, blur=blur, **TIGHT).value.item() > 0


def test_small_batches_of_one_law_come_nearer_when_one_of_them_shrinks():
    """The bias of few points in many dimensions, see docs/autoencoders.md; in one dimension it is small."""

    def at(scale, d):
        batches = (torch.randn(2, 256, d, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
        return sum(sinkhorn_divergence(scale * x, y, blur=0.5).item() for x, y in batches)

    assert min((0.4, 0.6, 0.8, 1.0), key=lambda scale: at(scale, d=16)) == 0.6
    assert min((0.4, 0.6, 0.8, 1.0), key=lambda scale: at(scale, d=1)) == 1.0


@pytest.mark.parametrize("p", [1, 2])
def test_symmetric_and_blind_to_order(p):
    (x, y), a, b = pair(), weights(30), weights(40, 2)
    solve = lambda *args: sinkhorn(*args, p=p, blur=0.3, **TIGHT).value  # noqa: E731
    expected = solve(x, y, a, b)
    torch.testing.assert_close(solve(y, x, b, a), expected, rtol=1e-9, atol=1e-10)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(solve(x[order], y, a[order], b), expected, rtol=1e-9, atol=1e-10)


def test_weights_count_copies_and_zero_weights_remove():
    x, y = pair(10, 12)
    copies = torch.tensor([1, 2, 3, 1, 1, 0, 1, 4, 1, 1])
    twice = sinkhorn(x.repeat_interleave(copies, 0), y, blur=0.5, **TIGHT)
    once = sinkhorn(x, y, copies.double(), blur=0.5, **TIGHT)
    torch.testing.assert_close(once.value, twice.value, rtol=1e-8, atol=1e-9)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(sinkhorn(x, y, copies.double(), blur=0.5, **TIGHT).value, x)
    assert slope[5].abs().max() < 1e-9


def test_a_batch_is_its_members():
    pairs = [pair(20, 25, seed=s) for s in range(3)]
    x, y = (torch.stack(t) for t in zip(*pairs, strict=True))
    x = x * torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)[:, None, None]
    x.requires_grad_()
    together = sinkhorn(x, y, blur=0.2, **TIGHT)
    slope = torch.autograd.grad(together.value.sum(), x)[0]
    assert together.value.shape == (3,)
    for i, v in enumerate(x.detach()):
        v.requires_grad_()
        alone = sinkhorn(v, y[i], blur=0.2, **TIGHT).value
        torch.testing.assert_close(together.value[i], alone, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(slope[i], torch.autograd.grad(alone, v)[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("blur", "bound"), [(0.05, 2e-2), (0.5, 5e-3)])
def test_float32_stays_near_float64(blur, bound):
    x, y = pair(200, 200, 16)
    exact, rough = x.clone().requires_grad_(), x.float().requires_grad_()
    truth = sinkhorn(exact, y, blur=blur, tolerance=1e-7).value
    got = sinkhorn(rough, y.float(), blur=blur)
    assert got.value.dtype == torch.float32
    assert got.marginal_error <= 1e-3
    assert abs(got.value.item() / truth.item() - 1) < 2e-6
    slope, true = torch.autograd.grad(got.value, rough)[0].double(), torch.autograd.grad(truth, exact)[0]
    assert (slope - true).norm() < bound * true.norm()


def test_bfloat16_is_computed_in_float32_even_under_autocast():
    x, y = (t.bfloat16().requires_grad_() for t in pair(50, 50))
    expected = sinkhorn_divergence(x.float(), y.float(), blur=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = sinkhorn_divergence(x, y, blur=0.5)
    got.backward()
    assert got.dtype == torch.float32
    assert got.item() == expected.item()
    assert x.grad.dtype == torch.bfloat16


def test_no_grad_gives_the_same_value():
    x, y = pair()
    with torch.no_grad():
        value = sinkhorn_divergence(x.requires_grad_(), y, blur=0.5)
    assert not value.requires_grad
    assert value.item() == sinkhorn_divergence(x, y, blur=0.5).item()


def test_a_warm_start_gives_the_same_answer_sooner():
    x, y = pair(60, 60, 8)
    cold = sinkhorn(x, y, blur=0.1, **TIGHT)
    warm = sinkhorn(x, y, blur=0.1, start=cold.duals, **TIGHT)
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-10, atol=0)
    assert warm.iterations < cold.iterations / 4
    moved = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    torch.testing.assert_close(
        sinkhorn(moved, y, blur=0.1, start=cold.duals, **TIGHT).value,
        sinkhorn(moved, y, blur=0.1, **TIGHT).value,
        rtol=1e-9,
        atol=0,
    )


def test_misleading_duals_are_recovered_from():
    """At the first eps whole columns of the kernel vanish: their duals come back by a logsumexp."""
    x, y = pair(40, 50)
    cold = sinkhorn(x, y, blur=0.1, **TIGHT)
    wrong = cold.duals._replace(g=1e3 * torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=x.dtype))
    torch.testing.assert_close(sinkhorn(x, y, blur=0.1, start=wrong, **TIGHT).value, cold.value, rtol=1e-9, atol=0)


def test_a_point_without_weight_knows_what_weight_would_cost():
    x, y = pair(
        8, 9
    )  # a wide blur: where a point overlaps no other, the self term bends like a square root of its weight
    a, b = weights(8), weights(9, 2)
    a[3], b[4] = 0, 0
    a.requires_grad_(), b.requires_grad_()
    solve = lambda a, b: sinkhorn(x, y, a, b, blur=1.0, tolerance=1e-12).value  # noqa: E731
    slopes = torch.autograd.grad(solve(a, b), (a, b))
    for side, at in ((0, 3), (1, 4)):
        values = []
        for h in (0.0, 1e-6):
            moved = [a.detach().clone(), b.detach().clone()]
            moved[side][at] += h
            values.append(solve(*moved).item())
        assert slopes[side][at].item() == pytest.approx((values[1] - values[0]) / 1e-6, rel=1e-3)


def test_a_kept_self_term_changes_nothing():
    (x, y), b = pair(), weights(40)
    x.requires_grad_()
    for p in (1, 2):
        whole = sinkhorn(x, y, None, b, p=p, blur=0.5, **TIGHT)
        kept = sinkhorn(x, y, None, b, p=p, blur=0.5, target=self_term(y, b, p=p, blur=0.5), **TIGHT)
        torch.testing.assert_close(kept.value, whole.value)
        torch.testing.assert_close(torch.autograd.grad(kept.value, x)[0], torch.autograd.grad(whole.value, x)[0])
    with pytest.raises(ValueError, match="fixed y"):
        sinkhorn(x, y.clone().requires_grad_(), target=self_term(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_points_and_coinciding_points(dtype):
    x, y = torch.zeros(1, 2, dtype=dtype), torch.tensor([[3.0, 4.0]], dtype=dtype)
    assert float(sinkhorn_divergence(x, y)) == pytest.approx(12.5, rel=1e-6)
    assert float(sinkhorn_divergence(x, y, p=1)) == pytest.approx(5.0, rel=1e-6)
    assert float(sinkhorn_divergence(x.expand(5, 2), y.expand(7, 2))) == pytest.approx(12.5, rel=1e-5)
    assert float(sinkhorn_divergence(x, x.expand(3, 2))) == pytest.approx(0, abs=1e-6)


def test_distant_clusters_converge():
    """Mass must cross gaps of many eps, where a scaling overflows and a column of the kernel vanishes."""
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(40, 2, generator=g, dtype=torch.float64), torch.randn(50, 2, generator=g, dtype=torch.float64)
    x[:10] += 30
    y[:30] -= 40
    got = sinkhorn(x, y, blur=0.5, tolerance=1e-8)
    assert got.marginal_error <= 1e-8
    a, b = torch.full((40,), 1 / 40, dtype=x.dtype), torch.full((50,), 1 / 50, dtype=x.dtype)
    cost = torch.cdist(x, y).square() / 2
    log_plan = (got.duals.f[:, None] + got.duals.g - cost) / 0.25 + a.log()[:, None] + b.log()
    torch.testing.assert_close(log_plan.exp().sum(0), b, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_plan.exp().sum(1), a, rtol=0, atol=1e-8)


def test_stopping_early_warns_and_reports():
    x, y = pair(60, 60, 8)
    with pytest.warns(RuntimeWarning, match="marginal error"):
        early = sinkhorn(x, y, blur=0.05, limit=5)
    assert early.marginal_error > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn(x, y, blur=0.05)


def bad(**change):
    x, y = pair(4, 5)
    return {"x": x, "y": y, **change}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(x=torch.zeros(0, 3)), "at least one point"),
        (bad(x=torch.zeros(4, 2)), "one width"),
        (bad(x=torch.zeros(4)), "Expected clouds"),
        (bad(x=torch.zeros(2, 4, 3), y=torch.zeros(3, 4, 3)), "as many clouds"),
        (bad(x=torch.full((4, 3), math.nan)), "NaN"),
        (bad(y=torch.full((4, 3), math.inf)), "infinity"),
        (bad(a=torch.tensor([1.0, -1, 1, 1])), "weights >= 0"),
        (bad(a=torch.tensor([1.0, math.nan, 1, 1])), "weights >= 0"),
        (bad(a=torch.zeros(4)), "positive weight"),
        (bad(b=torch.ones(4)), "weights of y"),
        (bad(p=3), "p = 1"),
        (bad(blur=0.0), "blur > 0"),
        (bad(blur=-1.0), "blur > 0"),
        (bad(blur=math.nan), "blur > 0"),
        (bad(tolerance=0.0), "tolerance"),
        (bad(limit=0), "limit"),
    ],
)
def test_bad_input_is_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(**arguments)
