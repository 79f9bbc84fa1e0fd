"""The preconditioned model where its network has nothing to say: data of the variance it was told."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.karras import Preconditioned, power
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain
from genrep.models import build
from genrep.objectives.preconditioned import PreconditionedDenoising


@pytest.fixture
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Watched(nn.Module):
    """Says a constant, and remembers what it read."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x, t, c):
        self.read = x
        return self.value.expand_as(x)


def silent(steps, sigma_data, value=0.0):
    chain = Chain(power(steps))
    denoiser = Preconditioned(Watched(value), VariancePreserving(chain), sigma_data)
    objective = PreconditionedDenoising(chain, sigma_data)
    return Model(DataSpec((3,)), Diffusion(denoiser, chain, (3,)), Inference(process=denoiser.process), objective)


def test_noise_levels_are_those_of_the_paper():
    chain = Chain(power(18))
    sigma = (chain.sigma / chain.alpha).double()
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma[1:], expected.flip(0), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="at least 2 steps"):
        power(1)


@pytest.mark.usefixtures("_double")
def test_a_silent_network_is_exact_on_a_gaussian():
    """x_0 ~ N(0, d^2): its estimate is skip x alone, the loss is 1, and the flow's density is exact."""
    d = 0.7
    model, x = silent(300, d), d * torch.randn(40_000, 3)
    error = model(Batch(x))["error"]
    assert error.mean().item() == pytest.approx(1, abs=5 * error.std().item() / 200)
    net = model.generative.denoiser.net
    assert net.read.square().mean().item() == pytest.approx(1, abs=0.02)
    few = x[:5]
    expected = Normal(0.0, d).log_prob(few).sum(1)
    torch.testing.assert_close(
        model.log_likelihood(few, method="ode", trace="exact").value, expected, atol=1e-3, rtol=0
    )
    bound = model.log_likelihood(x[:4000], method="vlb").value - Normal(0.0, d).log_prob(x[:4000]).sum(1)
    assert -1.5 < bound.mean().item() < 0
    torch.testing.assert_close(
        model.sample(4000, seed=0, sampler="heun").std(0), torch.full((3,), d), atol=0.03, rtol=0
    )


@pytest.mark.usefixtures("_double")
def test_what_the_network_says_counts_alike_at_every_noise():
    """A constant error of 0.3 of the network adds 0.09 to the loss, whatever sigma is."""
    torch.manual_seed(1)
    right = silent(300, 0.5)(Batch(0.5 * torch.randn(60_000, 3)))["error"]
    torch.manual_seed(1)
    wrong = silent(300, 0.5, value=0.3)(Batch(0.5 * torch.randn(60_000, 3)))["error"]
    excess = wrong - right
    assert excess.mean().item() == pytest.approx(0.09, abs=5 * excess.std().item() / math.sqrt(60_000))


@pytest.mark.usefixtures("_double")
def test_noise_is_drawn_log_normally():
    objective = PreconditionedDenoising(Chain(power(1000)), 0.5)
    chain = Chain(power(1000))
    log_sigma = (chain.sigma[1:] / chain.alpha[1:]).log()
    mean = (objective.share * log_sigma).sum()
    assert mean.item() == pytest.approx(-1.2, abs=0.02)
    assert (objective.share * (log_sigma - mean).square()).sum().sqrt().item() == pytest.approx(1.2, abs=0.02)


def test_it_learns_a_mixture():
    """Points near -1 and 1: samples by twenty evaluations lie near them, half and half."""
    model = build("edm", DataSpec((1,)), width=32, blocks=1)
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(300):
        optimiser.zero_grad()
        x = torch.randint(0, 2, (128, 1)) * 2.0 - 1 + 0.1 * torch.randn(128, 1)
        model.objectives[0].total(model(Batch(x))).backward()
        optimiser.step()
    x = model.eval().sample(1000, seed=0, batch=1000, sampler="dpm_solver", evaluations=20)
    assert (x > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert ((x.abs() - 1).abs() < 0.35).float().mean() > 0.95


def test_options_that_do_not_fit_are_refused():
    for options, message in (({"sigma_data": -1.0}, "sigma_data > 0"), ({"timesteps": 1}, "at least 2 steps")):
        with pytest.raises(ValueError, match=message):
            build("edm", DataSpec((1, 8, 8), levels=17), **options)
