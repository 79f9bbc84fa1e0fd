"""Codes of several levels, and a flow as prior: masses that sum to one, rates that add up, limits that are known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from genrep.contracts import Batch, DataSpec
from genrep.distributions.basic import Gaussian
from genrep.distributions.hierarchy import product
from genrep.models import build
from genrep.nets.topdown import resolutions

NAMES = ["ladder_vae", "very_deep_vae"]
TINY = DataSpec((4,), levels=3)
IMAGE = DataSpec((2, 9, 12), levels=4, classes=3)


def small(name, data, levels=3, **options):
    how = {"ladder_vae": {"levels": levels}, "very_deep_vae": {"blocks": (levels,)}}[name]
    torch.manual_seed(1)
    model = build(name, data, latent=2, width=16, **how, **options)
    with torch.no_grad():  # away from the start, where prior and posterior are known
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_mass_sums_to_one(name):
    """Over all 3^4 examples: wrong if prior, posterior, their order or the likelihood disagree anywhere."""
    model = small(name, TINY)
    if name == "ladder_vae":  # its untrained q is far narrower than p(z | x), where importance weights have no variance
        with torch.no_grad():
            for level in model.generative.ladder.net.levels:
                level.evidence.layers[-1].bias[2:] += 1.5
    x = torch.cartesian_prod(*[torch.arange(3)] * 4).repeat(40, 1)  # 40 estimates of each in one pass
    with torch.no_grad():
        torch.manual_seed(0)
        found = model.log_likelihood(x, method="importance", draws=20)
    assert found.value.exp().sum().item() / 40 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_rates_of_the_levels_add_up_to_the_rate(name):
    """Each is >= 0; in the mean over draws their sum is E_q log q(z | x) / p(z) of the whole code."""
    model = small(name, IMAGE)
    x = torch.randint(0, 4, (1, 2, 9, 12)).expand(2000, -1, -1, -1)
    with torch.no_grad():
        torch.manual_seed(0)
        terms = model(Batch(x))
        inside = model.domain.inward(x)
        q, p = model.inference.latent(inside), model.generative.prior()
        z = q.rsample()
        ratio = q.log_prob(z) - p.log_prob(z)
    levels = [v for k, v in terms.items() if k.startswith("rate_")]
    assert len(levels) == 3
    assert all((v >= 0).all() for v in levels)
    torch.testing.assert_close(terms["rate"], torch.stack(levels).sum(0))
    error = 4 * (ratio.std() + terms["rate"].std()).item() / math.sqrt(len(x))
    assert terms["rate"].mean().item() == pytest.approx(ratio.mean().item(), abs=error)
    assert terms["rate"].mean() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_betas_weigh_the_levels_and_ones_give_the_bound(name):
    model = small(name, TINY, beta=(0.5, 2.0, 3.0))
    terms = model(Batch(torch.randint(0, 3, (8, 4))))
    mean = {k: v.mean() for k, v in terms.items()}
    expected = mean["distortion"] + 0.5 * mean["rate_1"] + 2 * mean["rate_2"] + 3 * mean["rate_3"]
    torch.testing.assert_close(model.objectives[0].total(terms), expected)
    model, x = small(name, TINY), torch.randint(0, 3, (4000, 4))
    with torch.no_grad():
        bound = model.log_likelihood(x, method="elbo").value.mean()
        loss = model.objectives[0].total(model(Batch(x)))
    torch.testing.assert_close(loss, -bound, atol=0.1, rtol=0)


def test_one_level_of_a_vector_is_a_vae():
    """p(z) = N(0, I) before training, and what the bound then is: E log p(x | z) - KL(q, N(0, I)) in closed form."""
    torch.manual_seed(0)
    model = build("ladder_vae", DataSpec((5,)), levels=1, latent=2, width=8)
    prior = model.generative.prior()
    z = torch.randn(6, 2)
    torch.testing.assert_close(prior.log_prob(z), Normal(0, 1).log_prob(z).sum(1))
    x = torch.randn(6, 5)
    walk, _ = model.generative.coded(model.domain.inward(x), None)
    (q,) = [step.posterior for step in walk.steps]
    closed = 0.5 * (q.mean.square() + q.variance - 1 - 2 * q.log_std).flatten(1).sum(1)
    torch.testing.assert_close(walk.rates[0], closed)


def test_product_of_gaussians():
    """Bayes: a normal prior times a normal observation; a vague observation leaves the prior, at no cost."""
    a, b = (
        Gaussian(torch.tensor([[1.0]]), torch.tensor([[0.3]])),
        Gaussian(torch.tensor([[-2.0]]), torch.tensor([[-1.0]])),
    )
    found, grid = product(a, b), torch.linspace(-9, 9, 4001)
    joint = (a.log_prob(grid.view(-1, 1, 1)) + b.log_prob(grid.view(-1, 1, 1))).exp().flatten()
    joint = joint / torch.trapezoid(joint, grid)
    mean = torch.trapezoid(joint * grid, grid)
    assert found.mean.item() == pytest.approx(mean.item(), abs=1e-4)
    variance = torch.trapezoid(joint * (grid - mean).square(), grid)
    assert found.variance.item() == pytest.approx(variance.item(), abs=1e-4)
    vague = product(a, Gaussian(torch.tensor([[50.0]]), torch.tensor([[12.0]])))
    torch.testing.assert_close(vague.mean, a.mean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_codes_come_back_level_by_level(name):
    """decode(z) is the walk that drew z; changed levels change x, and the priors of those below them."""
    model = small(name, IMAGE)
    x = model.domain.inward(torch.randint(0, 4, (3, 2, 9, 12)))
    with torch.no_grad():
        walk, p = model.generative.coded(x, None)
        again = model.generative.likelihood(walk.code)
        torch.testing.assert_close(again.mean, p.mean)
        other = model.generative.ladder.walk(3, model.generative.ladder.given(walk.code + 1))
    assert not torch.equal(other.out, walk.out)
    assert not torch.allclose(other.steps[-1].prior.mean, walk.steps[-1].prior.mean)
    with pytest.raises(ValueError, match="Expected codes of shape"):
        model.decode(torch.zeros(3, 7))


@pytest.mark.parametrize("name", NAMES)
def test_temperature_scales_the_spread(name):
    """At zero all samples agree; in between, the first level's standard deviation is that of the prior times it."""
    model = small(name, TINY)
    assert len(model.sample(9, seed=0, temperature=0.0).unique(dim=0)) == 1
    from genrep.distributions.hierarchy import cooled

    torch.manual_seed(0)
    walk = model.generative.ladder.walk(20_000, cooled(0.3))
    first = walk.steps[0]
    ratio = (first.z - first.prior.mean).flatten(1).std(0) / first.prior.stddev[0].flatten()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.3), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="temperature >= 0"):
        model.sample(1, temperature=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_level_is_learnt(name, play):
    """After some updates on data that need them, the bound has risen and a gradient reaches every parameter."""
    torch.manual_seed(0)
    model = build(name, TINY, latent=2, width=16, **({"levels": 4} if name == "ladder_vae" else {"blocks": (4,)}))
    x = torch.randint(0, 3, (64, 1)).expand(-1, 4)
    before = model.objectives[0].total(model(Batch(x))).item()
    play(model, lambda: Batch(x), 80, lr=1e-2)
    after = model.objectives[0].total(model(Batch(x)))
    assert after.item() < 0.75 * before  # log 3 = 1.1 nats are enough, independent pixels cost 4.4
    after.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "data", "options", "message"),
    [
        ("ladder_vae", IMAGE, {"levels": 0}, "levels >= 1"),
        ("ladder_vae", IMAGE, {"latent": 0}, "latent >= 1"),
        ("ladder_vae", IMAGE, {"width": 1}, "width >= 2"),
        ("ladder_vae", IMAGE, {"depth": 9}, "can be halved 3 times at most"),
        ("ladder_vae", IMAGE, {"beta": (1.0, 1.0)}, "one for all or one for each of 3 levels"),
        ("ladder_vae", IMAGE, {"beta": (-1.0,)}, "beta >= 0"),
        ("ladder_vae", TINY, {"depth": 2}, "depth is for images"),
        ("ladder_vae", TINY, {"conditional": True}, "neither"),
        ("very_deep_vae", IMAGE, {"blocks": (0, 2)}, "at least 1 for the first"),
        ("very_deep_vae", TINY, {"blocks": (2, 2)}, r"Expected blocks for the resolutions 1 x 1"),
        ("flow_prior_vae", TINY, {"couplings": 0}, "couplings >= 1"),
        ("flow_prior_vae", TINY, {"latent": 0}, "latent >= 1"),
        ("flow_prior_vae", TINY, {"coupling": "planar"}, "coupling"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, data, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, data, **options)


def test_resolutions_of_images_of_any_size():
    assert resolutions((3, 9, 20), 2) == [(1, 1), (3, 5), (5, 10), (9, 20)]


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_flow_prior_starts_at_the_standard_normal_and_is_a_density(coupling):
    torch.manual_seed(0)
    model = build("flow_prior_vae", DataSpec((5,)), latent=2, coupling=coupling, flow_width=16, couplings=3, width=8)
    z = torch.randn(7, 2)
    torch.testing.assert_close(model.generative.prior().log_prob(z), Normal(0, 1).log_prob(z).sum(1))
    with torch.no_grad():
        for p in model.generative.prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    prior = model.generative.prior.double()()
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    with torch.no_grad():
        mass = prior.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=5e-3)


def test_flow_prior_finds_the_aggregate_posterior(play):
    """Codes that are N(m, S) by construction: the mean rate falls to E[log q(z|x)] - E[log N(z; m, S)], its least."""
    torch.manual_seed(0)
    model = build("flow_prior_vae", DataSpec((2,)), latent=2, flow_width=32, width=8)
    aggregate = MultivariateNormal(torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 1.2], [1.2, 1.0]]))
    prior = model.generative.prior
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for _ in range(300):
        optimiser.zero_grad()
        (-prior().log_prob(aggregate.sample((256,))).mean()).backward()
        optimiser.step()
        schedule.step()
    z = aggregate.sample((4000,))
    with torch.no_grad():
        gap = (aggregate.log_prob(z) - prior().log_prob(z)).mean().item()
        drawn = prior().rsample((4000,))
    assert abs(gap) < 0.05
    torch.testing.assert_close(drawn.mean(0), aggregate.mean, atol=0.15, rtol=0)
