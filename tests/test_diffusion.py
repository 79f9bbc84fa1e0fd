"""Chains, denoisers and the bound against closed forms on Gaussians."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Conditional, DataSpec, Inference, Model
from genrep.distributions.basic import Gaussian
from genrep.distributions.diffusion import Denoiser, Diffusion
from genrep.distributions.domains import domain_for
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import Denoised
from genrep.distributions.schedules import Chain, cosine, cosine_from, from_function, linear, named
from genrep.objectives.denoising import Denoising, scale_of
from genrep.objectives.timesteps import Uniform
from tests.known_diffusion import COVARIANCE, MEAN, Exact, close, closed_terms, exact, fine, model_density


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---- schedules and chains --------------------------------------------------------------------------------------------


def test_linear_schedule_scales_with_the_steps():
    for steps in (1000, 500):
        beta = -torch.expm1(linear(steps).diff())
        expected = torch.linspace(0.001 * 1000 / steps, 0.02 * 1000 / steps, steps)
        torch.testing.assert_close(beta, expected)
    assert torch.expm1(linear(1000, first=1e-4)[1]).item() == pytest.approx(-1e-4)


def test_cosine_schedule_is_its_formula_and_ends_above_zero():
    alpha_bar, t = cosine(100).exp(), torch.linspace(0, 1, 101)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(alpha_bar[:-1], (f / f[0])[:-1])
    assert alpha_bar[-1].item() == pytest.approx(alpha_bar[-2].item() * 1e-3)


def test_schedule_for_levels_starts_where_it_should():
    chain = Chain(cosine_from(10, 0.2))
    assert chain.sigma[1].item() == pytest.approx(0.2)
    angles = chain.alpha[1:-1].acos()
    torch.testing.assert_close(angles.diff(), angles.diff()[:1].expand(8))
    assert Chain(named("auto", 50, 17)).sigma[1].item() == pytest.approx(1 / 32)
    assert torch.equal(named("auto", 50), cosine(50))


def test_any_function_is_a_schedule_if_it_falls():
    torch.testing.assert_close(from_function(lambda t: 2 * (-3 * t).exp(), 7), -3 * torch.linspace(0, 1, 8))
    for wrong in (lambda t: 1 + t, lambda t: 0.5 - t, torch.ones_like):
        with pytest.raises(ValueError, match="fall"):
            from_function(wrong, 7)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_marginals_are_the_composition_of_the_steps(schedule):
    """x_k = sqrt(1 - beta_k) x_(k-1) + sqrt(beta_k) eps, composed, is the process at t = k / T, t in float32."""
    chain = Chain(named(schedule, 1000))
    process, x = VariancePreserving(chain), torch.ones(1, 1)
    mean, variance = 1.0, 0.0
    for k in range(1, 1001):
        beta = chain.log_beta[k].exp().item()
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        at = process(x, torch.tensor([k / 1000], dtype=torch.float32))
        assert at.mean.item() == pytest.approx(mean, rel=1e-9)
        assert at.variance.item() == pytest.approx(variance, rel=1e-9)
    start = process(x, torch.zeros(1))
    assert torch.equal(start.sample(), x)
    between = process(x, torch.tensor([0.4565])).mean.log()
    torch.testing.assert_close(between, (chain.alpha[456].log() + chain.alpha[457].log()).view(1, 1) / 2)


def test_reversal_is_bayes_rule():
    """q(x_(k-1) | x_k, x_0) = q(x_k | x_(k-1)) q(x_(k-1) | x_0) / q(x_k | x_0), at any point, also respaced."""
    for chain in (Chain(cosine(20)), Chain(linear(1000)).respaced(7)):
        for k in range(2, chain.steps + 1):
            x0, before, after = torch.randn(3, 1, 4)
            log_beta = chain.log_beta[k]

            def marginal(j, x0=x0, chain=chain):
                return Gaussian(chain.alpha[j] * x0, chain.sigma[j].log())

            step = Gaussian((1 - log_beta.exp()).sqrt() * before, log_beta / 2)
            bayes = step.log_prob(after) + marginal(k - 1).log_prob(before) - marginal(k).log_prob(after)
            torch.testing.assert_close(chain.reverse(after, x0, k).log_prob(before), bayes)


def test_respaced_chains_keep_their_points():
    chain = Chain(cosine(1000))
    short = chain.respaced(13)
    index = (short.t * 1000).round().long()
    assert short.steps == 13
    assert (index[0], index[-1]) == (0, 1000)
    for table in ("alpha", "sigma", "log_alpha_bar"):
        torch.testing.assert_close(getattr(short, table), getattr(chain, table)[index], rtol=1e-12, atol=0)
    assert chain.respaced(1000) is chain
    with pytest.raises(ValueError, match="1 to 1000"):
        chain.respaced(1001)


# ---- denoisers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_predictions_are_the_same_estimate(prediction):
    """A network that knows eps, x_0 or v gives x_0; the loss is the squared error of what is named."""
    process = VariancePreserving(Chain(cosine(50)))
    x, noise, t = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.98])
    alpha, sigma = process.scales(t, x)
    truth = {"epsilon": noise, "x0": x, "v": alpha * noise - sigma * x}[prediction]

    class Net(nn.Module):
        wrong = 0.0

        def forward(self, x, t, c):
            return torch.cat([truth + self.wrong, torch.full_like(truth, 0.5)], 1)

    net = Net()
    denoiser = Denoiser(net, process, prediction)
    found = denoiser(alpha * x + sigma * noise, t)
    torch.testing.assert_close(found.mean, x)
    torch.testing.assert_close(found.interpolation, torch.full_like(x, 0.75))
    net.wrong = 0.3
    error = denoiser(alpha * x + sigma * noise, t).mean - x
    torch.testing.assert_close((scale_of(prediction, alpha, sigma) * error).abs(), torch.full_like(x, 0.3))
    snr = (alpha / sigma).square()
    torch.testing.assert_close(scale_of("min_snr", alpha, sigma).square(), snr.clamp_max(5.0))


# ---- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_terms_of_the_bound_are_their_closed_forms(schedule):
    diffusion, x = exact(12, schedule, error=0.1, interpolation=0.7), torch.tensor([1.0, -0.3, 0.4])
    draws = diffusion.vlb_terms(x.expand(20_000, 3)).T
    close(draws, closed_terms(diffusion, x))


@torch.no_grad()
def test_bound_lies_below_the_model_and_reaches_the_data_as_steps_grow():
    """log p(x) >= log p_model(x) >= bound on average, and the gap falls like 1 / T."""
    data = MultivariateNormal(MEAN, COVARIANCE)
    x = data.sample((50,))
    gaps = []
    for steps in (10, 100, 1000):
        chain = fine(steps)
        diffusion = Diffusion(Exact(chain, interpolation=1.0), chain, (3,))
        bound = -closed_terms(diffusion, x).sum(0)
        assert (bound <= model_density(diffusion).log_prob(x) + 1e-9).all()
        gaps.append((data.log_prob(x) - bound).mean().item())
    assert 5 < gaps[0] / gaps[1]
    assert 8 < gaps[1] / gaps[2] < 12
    assert 0 < gaps[2] < 0.05
    wrong = exact(100, error=0.2)
    worse = -closed_terms(wrong, x).sum(0)
    assert (worse <= model_density(wrong).log_prob(x) + 1e-9).all()


class ExactStep(Conditional):
    """For x_0 ~ N(1/2, diag(v)): the mean of x_0 given x_t, and the interpolation that makes the variance exact."""

    def __init__(self, chain, v):
        super().__init__()
        self.chain, self.v = chain, v

    def forward(self, x, t, *, y=None):
        k = (t * self.chain.steps).round().long()
        alpha, sigma = self.chain.alpha[k, None], self.chain.sigma[k, None]
        total = alpha**2 * self.v + sigma**2
        mean = 0.5 + alpha * self.v / total * (x - alpha * 0.5)
        left = self.chain.from_start[k, None] ** 2 * self.v * sigma**2 / total
        small = torch.where(k > 1, self.chain.log_small[k].exp(), 0.0)[:, None]
        low, high = self.chain.log_small[k, None], self.chain.log_beta[k, None]
        return Denoised(mean, ((small + left).log() - low) / (high - low))


@pytest.mark.parametrize("steps", [2, 5, 50])
def test_bound_is_exact_where_the_reverse_steps_are(steps):
    """With exact means and variances nothing is lost at any T but what x_T still knows of x_0."""
    chain, v = Chain(cosine(steps)), torch.tensor([1.7, 0.3, 0.05])
    diffusion, x = Diffusion(ExactStep(chain, v), chain, (3,)), torch.tensor([1.0, -0.3, 0.4])
    exact_density = torch.distributions.Normal(0.5, v.sqrt()).log_prob(x).sum()
    close(diffusion.vlb(x.expand(20_000, 3), None), exact_density)


def test_the_model_reports_the_bound_as_a_density():
    """In the user's units: x = 2 inside + 1, so that log p falls by D log 2."""
    data = DataSpec((3,), mean=(1.0,) * 3, std=(2.0,) * 3)
    chain = fine(300)
    diffusion = Diffusion(Exact(chain, interpolation=1.0), chain, (3,))
    model = Model(
        data, diffusion, Inference(process=diffusion.denoiser.process), Denoising(Uniform(300)), domain=domain_for(data)
    )
    inside = MultivariateNormal(MEAN, COVARIANCE)
    x = inside.sample((400,))
    found = model.log_likelihood(2 * x + 1)
    assert (found.kind, found.measure) == ("lower bound", "density")
    gap = inside.log_prob(x) - 3 * math.log(2) - found.value
    assert gap.mean().item() == pytest.approx(0.1, abs=0.1)


def test_subset_of_the_terms_is_unbiased():
    """Where terms do not depend on the noise drawn the full bound is a number, and subsets average to it."""

    class Constant(Conditional):
        def forward(self, x, t, *, y=None):
            return Denoised(torch.full_like(x, 0.3), 0.4)

    chain = Chain(linear(30))
    diffusion, x = Diffusion(Constant(), chain, (2,)), torch.tensor([[0.5, -1.0]])
    full = diffusion.vlb(x, None)
    torch.testing.assert_close(diffusion.vlb(x, None), full)
    for n in (2, 7, 29):
        draws = diffusion.vlb(x.expand(4000, 2), None, evaluations=n)
        assert draws.std() > 0
        close(draws, full)
    for n in (1, 31):
        with pytest.raises(ValueError, match="2 to 30"):
            diffusion.vlb(x, None, evaluations=n)


@pytest.mark.parametrize("interpolation", [0.0, 0.35, 1.0])
def test_divergences_are_their_monte_carlo_estimates(interpolation):
    diffusion = exact(9, interpolation=interpolation)
    chain, x, noisy = diffusion.chain, torch.randn(1, 3), torch.randn(1, 3)
    for k in (2, 5, 9):
        found = diffusion.denoise(noisy, chain.t[k].expand(1), None)
        q, p = chain.reverse(noisy, x, k), chain.reverse(noisy, found.mean, k, interpolation)
        before = q.sample((40_000,))
        close(q.log_prob(before) - p.log_prob(before), diffusion.term(x, noisy, torch.tensor([k]), found))


def test_the_last_step_is_a_mass_over_the_levels():
    """p(x_0 | x_1) sums to one over all images, wherever x_1 lies and however wide the step is."""
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 5)] * 2)
    for steps in (1, 3, 300):
        chain = Chain(cosine(steps))
        diffusion = Diffusion(Exact(chain), chain, (2,), levels=5)
        noisy, first = torch.tensor([[0.7, -1.6]]).expand_as(grid), torch.ones(len(grid), dtype=torch.long)
        log_p = -diffusion.term(grid, noisy, first, Denoised(torch.tensor([[0.4, -1.0]]).expand_as(grid), 0.3))
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_masses_of_all_images_sum_to_nearly_one():
    """With the exact denoiser of the uniform distribution over 3^2 images and fine steps, each gets a mass of 1 / 9."""
    images = torch.cartesian_prod(*[torch.linspace(-1, 1, 3)] * 2)

    class Posterior(Conditional):
        def forward(self, x, t, *, y=None):
            k = (t * chain.steps).round().long()
            distance = (x[:, None] - chain.alpha[k, None, None] * images).square().sum(2)
            weights = (-distance / (2 * chain.sigma[k, None] ** 2)).softmax(1)
            return Denoised(weights @ images, 1.0)

    chain = Chain(torch.cat([torch.zeros(1), nn.functional.logsigmoid(torch.linspace(6, -9, 400))]))
    diffusion = Diffusion(Posterior(), chain, (2,), levels=3)
    mass = (diffusion.vlb(images.repeat(100, 1), None).view(100, 9)).mean(0).exp()
    assert 0.9 < mass.sum().item() < 1
    torch.testing.assert_close(mass, torch.full((9,), 1 / 9), atol=0.03, rtol=0)
