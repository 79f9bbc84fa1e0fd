"""The basic distributions against closed forms, torch's own and numerical integration."""

import math

import pytest
import torch
from scipy.stats import norm
from torch.distributions import Independent, Normal, kl_divergence

from genrep.contracts import DataSpec
from genrep.distributions.basic import Bernoulli, Categories, CellMixture, Cells, Gaussian, Point, kl, logistic_cells
from genrep.distributions.domains import Levels, Logit, Standard, cell, domain_for
from genrep.nets.levels import level_value


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_gaussian_agrees_with_torch():
    mean, log_std, x = torch.randn(3, 5, 2, 4)
    ours, theirs = Gaussian(mean, log_std), Independent(Normal(mean, log_std.exp()), 2)
    assert ours.batch_shape == (5,)
    assert ours.event_shape == (2, 4)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    draws = ours.sample((20_000,))
    torch.testing.assert_close(draws.mean(0), mean, atol=0.15, rtol=0)
    torch.testing.assert_close(draws.std(0), log_std.exp(), rtol=0.05, atol=0)


def test_kl_agrees_with_torch_and_is_none_where_unknown():
    q, p = Gaussian(*torch.randn(2, 6, 3)), Gaussian(*torch.randn(2, 3), batched=False)
    expected = kl_divergence(Independent(Normal(q.mean, q.stddev), 1), Independent(Normal(p.mean, p.stddev), 1))
    torch.testing.assert_close(kl(q, p), expected)
    assert kl(q, Bernoulli(torch.zeros(3), batched=False)) is None


@pytest.mark.parametrize("family", ["logistic", "normal"])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-1.4, -1.0, 0.013, 0.9, 3.0])
def test_cells_sum_to_one(family, levels, log_scale, mean):
    """Over all levels the masses sum to one, at any mean and scale; gradients are finite."""
    m = torch.full((levels, 1), mean, requires_grad=True)
    s = torch.full((levels, 1), log_scale, requires_grad=True)
    x = Levels(levels).inward(torch.arange(levels)[:, None]).double()
    log_prob = Cells(m, s, levels, family).log_prob(x)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-6)
    log_prob.sum().backward()
    assert m.grad.isfinite().all()
    assert s.grad.isfinite().all()


@pytest.mark.parametrize("levels", [2, 9, 256])
def test_gradients_of_logistic_cells_are_those_of_the_definition(levels):
    """By finite differences, and those of log(sigmoid(b) - sigmoid(a)) by torch, outer cells included."""
    x = Levels(levels).inward(torch.arange(levels)).double()
    m, s = (torch.randn(levels, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda m, s: logistic_cells(x, m, s, levels), (m, s))
    half = 1 / (levels - 1)
    below = torch.where(x < -1 + half, 0.0, ((x - half - m) / s.exp()).sigmoid())
    above = torch.where(x > 1 - half, 1.0, ((x + half - m) / s.exp()).sigmoid())
    inside = x.clone().requires_grad_()
    of_x = torch.autograd.grad(logistic_cells(inside, m, s, levels).sum(), inside)[0]
    found, expected = logistic_cells(x, m, s, levels), (above - below).log()
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(v.sum(), (m, s)) for v in (found, expected))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(of_x, -ours[0])


@pytest.mark.parametrize("family", ["logistic", "normal"])
def test_cells_sample_as_their_masses_say(family):
    d = Cells(torch.full((1, 1), 0.2), torch.full((1, 1), -1.5), 9, family)
    x = ((d.sample((200_000,)) + 1) * 4).round().long().flatten()
    frequency = x.bincount(minlength=9) / len(x)
    levels = Levels(9).inward(torch.arange(9)[:, None]).double()
    torch.testing.assert_close(frequency, d.log_prob(levels[:, None]).exp().flatten(), atol=0.005, rtol=0)


def test_cells_in_float32_are_right_far_out():
    """Far from the mean the mass is the tail of the density, not the logarithm of a rounded zero."""
    half = 1 / 255 / 0.025  # half a cell in units of the scale; both intervals lie 40 scales out
    exact_logistic, exact_normal = math.log(2 * math.sinh(half)) - 40, float(norm.logsf(40 - half))
    for family, exact in (("logistic", exact_logistic), ("normal", exact_normal)):
        d = Cells(torch.tensor([[-0.5]]).float(), torch.tensor([[-3.688879]]).float(), 256, family)
        inside = torch.tensor([[0.5]]).float()
        reference = Cells(torch.tensor([[-0.5]]), torch.tensor([[-3.688879]]), 256, family).log_prob(inside.double())
        torch.testing.assert_close(d.log_prob(inside).double(), reference, rtol=1e-4, atol=0)
        assert reference.item() == pytest.approx(exact, rel=1e-4)


def test_bernoulli_and_point():
    d = Bernoulli(torch.zeros(2, 3))
    torch.testing.assert_close(d.log_prob(torch.ones(2, 3)), torch.full((2,), -3 * torch.tensor(2.0).log()))
    assert set(d.sample((50,)).unique().tolist()) == {0.0, 1.0}
    assert Point(torch.ones(4, 2)).rsample((3,)).shape == (3, 4, 2)


@pytest.mark.parametrize("domain", [Levels(7), Levels(2, low=0.0), Logit(7), Logit(256)])
def test_domains_of_levels(domain):
    """Outward undoes inward; a continuous point lies in its level's cell; its slope is the derivative."""
    x = torch.arange(domain.levels).repeat(50, 1)
    assert torch.equal(domain.outward(domain.inward(x)), x.to(torch.uint8))
    inside, slope = domain.continuous(x)
    assert torch.equal(domain.outward(inside), x.to(torch.uint8))
    torch.manual_seed(3)
    inside, slope = domain.continuous(x[:1])
    torch.manual_seed(3)
    level = x[:1].float() - 0.5 + torch.rand_like(x[:1].float())
    level = level.double().requires_grad_()
    curve = torch.logit(domain._squeezed(level)) if isinstance(domain, Logit) else level / domain.steps
    (derivative,) = torch.autograd.grad(curve.sum(), level)
    torch.testing.assert_close(slope.double(), derivative.log().sum(1), rtol=1e-5, atol=1e-4)


def test_dequantised_levels_never_reach_the_next_cell():
    x = torch.full((1 << 21,), 255, dtype=torch.uint8)
    assert cell(x).max() < 255.5


def test_standard_units():
    data = DataSpec((2,), mean=(1.0, -3.0), std=(2.0, 0.5))
    domain = domain_for(data)
    assert isinstance(domain, Standard)
    x = torch.randn(6, 2)
    torch.testing.assert_close(domain.outward(domain.inward(x)), x)
    inside, slope = domain.continuous(x)
    expected = Normal(torch.tensor([1.0, -3.0]), torch.tensor([2.0, 0.5])).log_prob(x).sum(1)
    torch.testing.assert_close(Normal(0.0, 1.0).log_prob(inside).sum(1) + slope, expected)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 4.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mixtures_of_cells_sum_to_one(levels, log_scale, spread, dtype):
    """At any means, scales and weights, and with finite gradients; in float32 to its rounding."""
    parameters = [torch.randn(1, 1, 5, dtype=dtype) * s for s in (10.0, spread, 1.0)]
    parameters[2] += log_scale
    for p in parameters:
        p.requires_grad_()
    x = level_value(torch.arange(levels)[:, None], parameters[0], levels)
    log_prob = CellMixture(*parameters, levels).log_prob(x)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-6 if dtype == torch.float64 else 1e-3)
    log_prob.sum().backward()
    assert all(p.grad.isfinite().all() for p in parameters)


@pytest.mark.parametrize("kind", ["categories", "mixture"])
def test_free_and_mixed_levels_sample_as_their_masses_say(kind):
    d = Categories(torch.randn(1, 1, 9)) if kind == "categories" else CellMixture(*torch.randn(3, 1, 1, 4) - 1, 9)
    x = d.sample((200_000,))
    levels = Levels(9).inward(torch.arange(9)[:, None, None]).double()
    expected = d.log_prob(levels).exp().flatten()
    assert expected.sum().item() == pytest.approx(1)
    frequency = ((x + 1) * 4).round().long().flatten().bincount(minlength=9) / len(x)
    torch.testing.assert_close(frequency, expected, atol=0.005, rtol=0)


def test_categories_mean():
    d = Categories(torch.randn(3, 2, 7))
    levels = torch.linspace(-1, 1, 7)
    torch.testing.assert_close(d.mean, (d.logits.softmax(-1) * levels).sum(-1))
