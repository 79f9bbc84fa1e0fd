"""Samplers, the flow's likelihood and guidance where the denoiser is exact."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from genrep.contracts import Conditional
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.guidance import ClassifierFree
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import SAMPLERS, Denoised
from genrep.distributions.schedules import Chain, cosine
from tests.known_diffusion import COVARIANCE, MEAN, Exact, close, covariance_of, exact, fine, model_density


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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


@pytest.mark.parametrize(
    ("sampler", "option", "order"),
    [
        ("ancestral", {}, 1),
        ("ddim", {}, 1),
        ("ddim", {"eta": 0.6}, 1),
        ("ddim", {"eta": 1.0}, 1),
        ("heun", {}, 2),
        ("heun", {"churn": 3.0}, 2),
        ("dpm_solver", {}, 2),
        ("dpm_solver_sde", {}, 2),
        ("ode", {}, 4),
    ],
)
def test_all_samplers_converge_to_the_same_distribution(monkeypatch, sampler, option, order):
    """Exact covariances: twice the steps bring them at least 2^order times nearer to that of the data."""
    chain, errors = fine(4001, -18.0), []
    for steps in (21, 41) if sampler == "ode" else (75, 150):
        found = covariance_of(monkeypatch, SAMPLERS[sampler].walk, chain, steps, **option)
        errors.append((found - COVARIANCE).abs().max().item())
    assert errors[1] < {1: 0.1, 2: 0.005, 4: 1e-4}[order]
    assert 0.75 * 2**order < errors[0] / errors[1]


def test_ddim_with_all_the_noise_is_ancestral():
    """The same numbers drawn give the same samples; the variance is btilde."""
    diffusion = exact(40)
    torch.manual_seed(3)
    one = diffusion(evaluations=9).sample((5,))
    torch.manual_seed(3)
    torch.testing.assert_close(diffusion(sampler="ddim", evaluations=9, eta=1.0).sample((5,)), one)


def test_inversion_comes_back():
    """The round trip nears the identity as steps grow, at first order, and corrections close it at any number."""
    diffusion = exact(2000)
    x, errors = MultivariateNormal(MEAN, COVARIANCE).sample((6,)), []
    for steps, corrections in ((100, 0), (200, 0), (100, 12)):
        chain = diffusion.chain.respaced(steps)
        back = SAMPLERS["ddim"].walk(
            diffusion.along(chain, None), diffusion.invert(x, steps=steps, corrections=corrections), chain
        )
        errors.append((back - x).abs().max().item())
    assert errors[0] < 0.3
    assert 1.6 < errors[0] / errors[1] < 2.6
    assert errors[2] < 1e-3 < errors[1] / 10
    latent = diffusion.invert(MultivariateNormal(MEAN, COVARIANCE).sample((20_000,)), steps=200)
    torch.testing.assert_close(latent.T.cov(), torch.eye(3), atol=0.06, rtol=0)


@pytest.mark.parametrize("spacing", ["time", "log_snr"])
def test_respaced_chains_are_of_the_same_process(spacing):
    """Their points lie where the process has the same noise at the same time, and keep both ends."""
    for chain in (Chain(cosine(1000)), fine(300)):
        short = chain.respaced(13, spacing)
        alpha, sigma = VariancePreserving(chain).scales(short.t, torch.ones(14, 1))
        torch.testing.assert_close(alpha[:, 0], short.alpha, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(sigma[:, 0], short.sigma, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(short.t[[0, -1]], torch.tensor([0.0, 1.0]))
    ratio = (
        Chain(cosine(1000)).respaced(13, "log_snr").sigma[1:] / Chain(cosine(1000)).respaced(13, "log_snr").alpha[1:]
    ).log()
    torch.testing.assert_close(ratio.diff(), ratio.diff()[:1].expand(12))
    with pytest.raises(ValueError, match="Expected a spacing of"):
        fine(9).respaced(3, "even")


def test_evaluations_are_those_that_happen():
    for sampler, n in (("ancestral", 7), ("ddim", 7), ("heun", 7), ("heun", 8), ("dpm_solver", 7), ("ode", 9)):
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
    for how, message in (
        ({"evaluations": 201}, "the chain has 200 steps"),
        ({"sampler": "euler"}, "Valid: ancestral, ddim, heun"),
        ({"eta": 0.5}, "sampler=ddim"),
        ({"sampler": "ddim", "churn": 2.0}, "sampler=heun"),
        ({"sampler": "heun", "churn": -1.0}, "churn >= 0"),
        ({"spacing": "even"}, "spacing"),
    ):
        with pytest.raises(ValueError, match=message):
            diffusion(**how)
