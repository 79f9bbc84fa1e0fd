"""Chains, the bound and samplers against closed forms on Gaussians."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model
from genrep.distributions.basic import Gaussian
from genrep.distributions.diffusion import Denoiser, Diffusion
from genrep.distributions.domains import domain_for
from genrep.distributions.guidance import ClassifierFree
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import Denoised
from genrep.distributions.schedules import Chain, cosine, cosine_from, from_function, linear, named
from genrep.objectives.denoising import Denoising, scale_of
from genrep.objectives.timesteps import LossAware, Uniform, Weighted

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.5, 0.1], [0.5, 0.8, -0.2], [0.1, -0.2, 0.3]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Exact(Conditional):
    """E[x_0 | x_t] for x_0 ~ N(MEAN, COVARIANCE), plus an error."""

    def __init__(self, chain, error=0.0, interpolation=0.0):
        super().__init__()
        self.process, self.interpolation = VariancePreserving(chain), interpolation
        self.error = nn.Parameter(torch.tensor(error))

    def gain(self, alpha, sigma):
        return alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(3))

    def forward(self, x, t, *, y=None):
        alpha, sigma = self.process.scales(t, x)
        if (t == t[0]).all():
            gains = self.gain(alpha[0], sigma[0]).expand(len(x), 3, 3)
        else:
            gains = self.gain(alpha[..., None], sigma[..., None])
        mean = MEAN + self.error + torch.einsum("bij,bj->bi", gains, x - alpha * MEAN)
        return Denoised(mean, self.interpolation)


def exact(steps, schedule="cosine", **options):
    chain = Chain(named(schedule, steps))
    return Diffusion(Exact(chain, **options), chain, (3,))


def close(draws, expected, errors=5.0):
    """Means over dimension 0 agree with the expected within that many standard errors."""
    standard = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= errors * standard + 1e-9).all(), (draws.mean(0), expected, standard)


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


@torch.no_grad()
def closed_terms(diffusion, x):
    """E_q of each term for the exact denoiser of a Gaussian, (T + 1,) at x (3,), or (T + 1, N) at x (N, 3)."""
    chain, denoiser, eye, terms = diffusion.chain, diffusion.denoiser, torch.eye(3), []
    for k in range(1, chain.steps + 1):
        alpha, sigma, low = chain.alpha[k], chain.sigma[k], chain.log_small[k]
        log_variance = low + denoiser.interpolation * (chain.log_beta[k] - low)
        gain = denoiser.gain(alpha, sigma)
        error = (x - MEAN) @ (eye - alpha * gain).T - denoiser.error
        square = error.square().sum(-1) + sigma**2 * (gain @ gain.T).trace()
        term = chain.from_start[k] ** 2 * square / (2 * log_variance.exp())
        widening = 1.5 * ((low - log_variance).exp() - 1 - (low - log_variance))
        terms.append(term + (1.5 * (math.log(2 * math.pi) + log_variance) if k == 1 else widening))
    alpha, sigma = chain.alpha[-1], chain.sigma[-1]
    return torch.stack([*terms, 0.5 * (alpha**2 * x.square().sum(-1) + 3 * (sigma**2 - 1 - 2 * sigma.log()))])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_terms_of_the_bound_are_their_closed_forms(schedule):
    diffusion, x = exact(12, schedule, error=0.1, interpolation=0.7), torch.tensor([1.0, -0.3, 0.4])
    draws = diffusion.vlb_terms(x.expand(20_000, 3)).T
    close(draws, closed_terms(diffusion, x))


def fine(steps, end=-12.0):
    """Its log-SNR falls evenly from 12 to `end` after the first step, so that steps get finer everywhere."""
    return Chain(torch.cat([torch.zeros(1), nn.functional.logsigmoid(torch.linspace(12, end, steps))]))


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


@torch.no_grad()
def model_density(diffusion):
    """p(x_0) of a linear reverse chain: each step maps a Gaussian to a Gaussian."""
    chain, denoiser = diffusion.chain, diffusion.denoiser
    mean, covariance, eye = torch.zeros(3), torch.eye(3), torch.eye(3)
    for k in range(chain.steps, 0, -1):
        gain = denoiser.gain(chain.alpha[k], chain.sigma[k])
        a = chain.from_start[k] * gain + chain.from_next[k] * eye
        mean = a @ mean + chain.from_start[k] * (MEAN + denoiser.error - chain.alpha[k] * gain @ MEAN)
        step = chain.reverse(torch.zeros(1, 3), torch.zeros(1, 3), k, denoiser.interpolation)
        covariance = a @ covariance @ a.T + step.variance[0, 0] * eye
    return MultivariateNormal(mean, covariance)


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


# ---- training --------------------------------------------------------------------------------------------------------


def test_vlb_loss_averages_to_minus_the_bound():
    diffusion = exact(8, error=0.2)
    model = Model(DataSpec((3,)), diffusion, Inference(), Denoising(Uniform(8), "vlb"))
    x = torch.tensor([1.0, -0.3, 0.4])
    draws = torch.stack([3 * model(Batch(x.expand(50, 3)))["vlb"].mean() for _ in range(600)])
    close(draws, closed_terms(diffusion, x)[:-1].sum())


def test_simple_loss_of_the_exact_denoiser_is_the_remaining_uncertainty():
    """E |eps - eps_hat|^2 = (a / s)^2 tr Cov(x_0 | x_t), averaged over the steps."""
    diffusion = exact(8)
    chain, eye = diffusion.chain, torch.eye(3)
    expected = []
    for k in range(1, 9):
        alpha, sigma = chain.alpha[k], chain.sigma[k]
        left = (eye - alpha * diffusion.denoiser.gain(alpha, sigma)) @ COVARIANCE
        expected.append((alpha / sigma) ** 2 * left.trace() / 3)
    model = Model(DataSpec((3,)), diffusion, Inference(), Denoising(Uniform(8), "simple"))
    x = MultivariateNormal(MEAN, COVARIANCE).sample((20_000,))
    draws = torch.stack([model(Batch(part))["simple"].mean() for part in x.split(100)])
    close(draws, torch.stack(expected).mean())


def test_hybrid_teaches_the_variance_alone_by_the_bound():
    """The mean's gradient is that of the simple loss, the variance's a thousandth of the bound's."""
    chain = Chain(cosine(10))
    grads = {}
    for loss in ("simple", "vlb", "hybrid"):
        torch.manual_seed(3)
        net = Table()
        diffusion = Diffusion(Denoiser(net, VariancePreserving(chain)), chain, (3,))
        model = Model(DataSpec((3,)), diffusion, Inference(), Denoising(Uniform(10), loss))
        model.objectives[0].total(model(Batch(torch.randn(64, 3)))).backward()
        grads[loss] = net.out.grad
    torch.testing.assert_close(grads["hybrid"][:3], grads["simple"][:3])
    torch.testing.assert_close(grads["hybrid"][3:], 0.001 * grads["vlb"][3:])
    assert (grads["simple"][3:] == 0).all()


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Parameter(torch.linspace(-0.5, 0.5, 6))

    def forward(self, x, t, c):
        return self.out.expand(len(x), -1)


def test_steps_are_uniform_and_spread_over_the_batch():
    drawn = torch.stack([Uniform(7)(10, torch.device("cpu"))[0] for _ in range(4000)])
    for column in (drawn[:, 0], drawn[:, 9]):
        close(torch.nn.functional.one_hot(column - 1, 7).double(), torch.full((7,), 1 / 7))
    counts = torch.stack([row.bincount(minlength=8)[1:] for row in drawn])
    assert counts.min() >= 1  # ten over seven: each step once or twice
    assert counts.max() <= 2


def choosers():
    aware = LossAware(20, bins=6)
    for _ in range(100):
        k, _ = aware(30, torch.device("cpu"))
        aware.learn(k, 5.0 / k)
    return {"uniform": Uniform(20), "weighted": Weighted(torch.linspace(0.1, 3, 20)), "loss aware": aware}


@pytest.mark.parametrize("name", ["uniform", "weighted", "loss aware"])
def test_every_choice_of_steps_has_the_same_expectation(name):
    """E[weight f(k)] = mean of f over all steps, for any f."""
    chooser, f = choosers()[name], torch.randn(20)
    draws = torch.stack([(w * f[k - 1]).mean() for k, w in (chooser(3, torch.device("cpu")) for _ in range(6000))])
    close(draws, f.mean())


def test_loss_aware_choice_lowers_the_variance():
    """After learning that loss falls like 1 / k it estimates such a loss better than the uniform choice."""
    found = choosers()
    spreads = {}
    for name in ("uniform", "loss aware"):
        k, weight = zip(*[found[name](1, torch.device("cpu")) for _ in range(4000)], strict=True)
        spreads[name] = (torch.cat(weight) / torch.cat(k)).std()
        assert torch.cat(weight).max() <= 10
    assert spreads["loss aware"] < 0.6 * spreads["uniform"]


def test_a_step_that_would_never_be_drawn_is_refused():
    with pytest.raises(ValueError, match="never be trained"):
        Weighted(torch.tensor([1.0, 0.0]))


def test_losses_are_corrected_and_learnt_in_train_mode_only():
    diffusion = exact(8, error=0.2)
    expected = closed_terms(diffusion, torch.tensor([1.0, -0.3, 0.4]))[:-1].sum()
    chooser = LossAware(8)
    model = Model(DataSpec((3,)), diffusion, Inference(), Denoising(chooser, "vlb"))
    x = Batch(torch.tensor([1.0, -0.3, 0.4]).expand(50, 3))
    with torch.no_grad():
        for _ in range(200):
            model(x)
        learnt = chooser.square.clone()
        assert not torch.allclose(learnt, torch.ones(8))
        model.eval()
        close(torch.stack([3 * model(x)["vlb"].mean() for _ in range(1000)]), expected)
    assert torch.equal(chooser.square, learnt)


# ---- samplers --------------------------------------------------------------------------------------------------------


def test_ancestral_samples_have_the_moments_of_the_chain():
    """Whole and respaced: the moments of the linear recursion, which are those of the data for many steps."""
    diffusion = exact(200)
    for n, how in ((200, {}), (10, {"evaluations": 10})):
        expected = model_density(Diffusion(diffusion.denoiser, diffusion.chain.respaced(n), (3,)))
        x = diffusion(**how).sample((20_000,))
        # the last step adds no noise
        covariance = expected.covariance_matrix - diffusion.chain.respaced(n).log_small[1].exp() * torch.eye(3)
        close(x, expected.mean)
        torch.testing.assert_close(x.T.cov(), covariance, atol=0.03, rtol=0)
    torch.testing.assert_close(diffusion().sample((20_000,)).T.cov(), COVARIANCE, atol=0.04, rtol=0)


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm_solver", 2)])
def test_deterministic_samplers_converge_to_the_data_at_their_order(sampler, order):
    """Linear maps of x_T here: with four times the steps their covariance is 4^order times nearer to the data's."""
    chain, errors = fine(1001, -18.0), []
    for steps in (50, 200):
        torch.manual_seed(1)
        diffusion = Diffusion(Exact(chain), chain, (3,))
        n = 2 * steps - 1 if sampler == "heun" else steps
        assert diffusion.evaluations(sampler=sampler, evaluations=n) == n
        x = diffusion(sampler=sampler, evaluations=n).sample((4,))
        torch.manual_seed(1)
        start = torch.randn(4, 3)
        linear_map = torch.linalg.solve(start[1:] - start[:1], x[1:] - x[:1])
        errors.append((linear_map.T @ linear_map - COVARIANCE).abs().max().item())
    assert errors[1] < (0.05 if order == 1 else 0.001)
    assert 0.9 * 4**order < errors[0] / errors[1] < 1.1 * 4**order


def test_evaluations_are_those_that_happen():
    for sampler, n in (("ancestral", 7), ("ddim", 7), ("heun", 7), ("heun", 8), ("dpm_solver", 7)):
        diffusion, calls = exact(30), []
        diffusion.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        diffusion(sampler=sampler, evaluations=n).sample((2,))
        assert len(calls) == diffusion.evaluations(sampler=sampler, evaluations=n)
        assert n - 1 <= len(calls) <= n


def test_flow_likelihood_is_exact_on_a_gaussian():
    data, chain = MultivariateNormal(MEAN, COVARIANCE), fine(400, -18.0)
    x = data.sample((5,))
    diffusion = Diffusion(Exact(chain), chain, (3,))
    found = diffusion.ode(x, None, trace="exact")
    torch.testing.assert_close(found, data.log_prob(x), atol=1e-3, rtol=0)
    close(diffusion.ode(x.repeat(1000, 1), None).view(-1, 5), found)


def test_flow_likelihood_is_exact_on_a_mixture_and_integrates_to_one():
    """p(x) = N(-1, 0.3^2) / 3 + 2 N(0.5, 0.5^2) / 3, whose denoiser is known."""
    share, mean, std = torch.tensor([1.0, 2.0]) / 3, torch.tensor([-1.0, 0.5]), torch.tensor([0.3, 0.5])
    chain = fine(400, -18.0)

    class Posterior(Conditional):
        process = VariancePreserving(chain)

        def forward(self, x, t, *, y=None):
            alpha, sigma = self.process.scales(t, x)
            total = alpha**2 * std**2 + sigma**2
            weight = (share.log() - (x - alpha * mean) ** 2 / (2 * total) - total.log() / 2).softmax(1)
            each = mean + alpha * std**2 / total * (x - alpha * mean)
            return Denoised((weight * each).sum(1, keepdim=True))

    x = torch.linspace(-5, 5, 401)[:, None]
    found = Diffusion(Posterior(), chain, (1,)).ode(x, None, trace="exact")
    exact_density = (torch.distributions.Normal(mean, std).log_prob(x) + share.log()).logsumexp(1)
    torch.testing.assert_close(found, exact_density, atol=1e-3, rtol=1e-3)
    assert torch.trapezoid(found.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-3)


class Labelled(Conditional):
    """Exact for x_0 ~ N(+-1, 0.2^2), the sign known by label 1 or 0, or unknown (-1)."""

    reads_y = True

    def __init__(self, chain):
        super().__init__()
        self.process = VariancePreserving(chain)

    def forward(self, x, t, *, y=None):
        alpha, sigma = self.process.scales(t, x)
        total = 0.04 * alpha**2 + sigma**2
        unknown = torch.tanh(alpha * x / total)
        mean = torch.where(y[:, None] < 0, unknown, 2.0 * y[:, None] - 1)
        return Denoised(mean + 0.04 * alpha / total * (x - alpha * mean))


def test_guidance_moves_towards_the_condition():
    """Scale 1 is the plain denoiser, 0 the one without condition; the higher, the farther to the label's side."""
    chain = Chain(cosine(50))
    diffusion = Diffusion(Labelled(chain), chain, (1,), guidable=True)
    x, t, y = torch.randn(64, 1), torch.rand(64) * 0.9 + 0.05, torch.ones(64, dtype=torch.long)
    estimates = [diffusion.denoise(x, t, y, scale).mean for scale in (0.0, 1.0, 2.0, 4.0)]
    torch.testing.assert_close(estimates[0], diffusion.denoiser(x, t, y=-y).mean)
    torch.testing.assert_close(ClassifierFree(diffusion.denoiser, 1.0)(x, t, y=y).mean, estimates[1])
    for less, more in zip(estimates[:-1], estimates[1:], strict=True):
        assert (more >= less - 1e-12).all()
    means = [diffusion(y=y, sampler="ddim", guidance=scale).sample().mean().item() for scale in (1.0, 3.0)]
    assert means[0] == pytest.approx(1, abs=0.08)
    assert means[1] > means[0]
    with pytest.raises(ValueError, match="Guidance needs"):
        exact(9)(guidance=2.0)


def test_numbers_of_evaluations():
    diffusion = exact(200)
    assert diffusion.evaluations() == 200
    assert diffusion.evaluations(sampler="ddim") == 50
    assert exact(20).evaluations(sampler="ddim") == 20
    for how, message in (({"evaluations": 201}, "1 to 200"), ({"sampler": "euler"}, "Valid: ancestral, ddim, heun")):
        with pytest.raises(ValueError, match=message):
            diffusion(**how)
