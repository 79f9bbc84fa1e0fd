"""Linear stochastic differential equations against closed forms, moments and simulation; models of Gaussians."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.linear_sde import LinearSDE, clock, given, named, schedule
from genrep.distributions.schedules import Chain
from genrep.distributions.score import NoiseEstimate, StateDiffusion, StateProcess, told
from genrep.models import build
from genrep.objectives.score import ScoreMatching

NAMES = ["vp", "ve", "sub_vp", "langevin", "third_order"]
OWN = {"drift": (-0.5, 0.3, 0.1, -1.0), "diffusion": (0.2, 0.0, 0.4, 1.0), "beta": (0.5, 3.0)}


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def equations():
    return {name: named(name) for name in NAMES} | {"own": given(**OWN)}


def test_scalar_kernels_are_their_formulas():
    t = torch.tensor([0.01, 0.3, 1.0])
    b = 0.1 * t + 19.9 * t**2 / 2
    expected = {
        "vp": ((-b / 2).exp(), 1 - (-b).exp()),
        "sub_vp": ((-b / 2).exp(), (1 - (-b).exp()) ** 2),
        "ve": (torch.ones(3), (0.01 * 5000**t) ** 2 - 0.01**2),
    }
    for name, (mean, variance) in expected.items():
        found = named(name).kernel(t)
        torch.testing.assert_close(found.mean[:, 0], mean)
        torch.testing.assert_close(found.covariance[:, 0, 0], variance)


@pytest.mark.parametrize("name", [*NAMES, "own"])
def test_kernels_solve_the_equations_of_the_moments(name):
    """dm = beta A m dt, dS = (beta A S + S beta A' + beta L L') dt, by small steps of Runge-Kutta."""
    sde = equations()[name]
    m, s = torch.zeros(sde.size), torch.diag(sde.start).clone()
    m[0], grid = 1.0, torch.linspace(0, 0.7, 351)
    for a, b in zip(grid[:-1], grid[1:], strict=True):

        def slope(m, s, t):
            drift, noise = sde.drift_at(t[None])[0], sde.noise_at(t[None])[0]
            return drift @ m, drift @ s + s @ drift.T + noise

        h, (m1, s1) = b - a, slope(m, s, a)
        m2, s2 = slope(m + h / 2 * m1, s + h / 2 * s1, a + h / 2)
        m, s = m + h * m2, s + h * s2
    found = sde.kernel(grid[-1:])
    torch.testing.assert_close(found.mean[0], m, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.covariance[0], s, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["langevin", "own"])
def test_kernels_are_what_simulation_gives(name):
    """Paths of Euler and Maruyama from x = 1.3."""
    sde, n, steps = equations()[name], 20_000, 120
    z = torch.cat([torch.full((n, 1), 1.3), sde.start[1:].sqrt() * torch.randn(n, sde.size - 1)], 1)
    for t in torch.arange(steps) * 0.5 / steps:
        dt = 0.5 / steps
        z = z + dt * z @ sde.drift_at(t[None])[0].T
        z = z + (dt * sde.beta(t)) ** 0.5 * torch.randn(n, sde.size) @ sde.diffusion.T
    found = sde.kernel(torch.tensor([0.5]))
    torch.testing.assert_close(z.mean(0), 1.3 * found.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.T.cov(), found.covariance[0], atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", ["langevin", "third_order"])
def test_noise_at_the_end_forgets_the_data(name):
    found = named(name).kernel(torch.ones(1))
    assert found.mean.abs().max() < 0.05
    assert torch.linalg.eigvalsh(found.covariance).min() > 0.2


def test_chains_of_one_part_have_its_ratio_of_signal_and_noise():
    chain = Chain(schedule(named("ve"), 50))
    t = torch.linspace(1e-3, 1, 50)
    sigma = ((0.01 * 5000**t) ** 2 - 0.01**2).sqrt()
    torch.testing.assert_close((chain.sigma / chain.alpha)[1:], sigma, rtol=1e-9, atol=0)


class Silent(nn.Module):
    """A network that says a constant, and remembers what it read."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, z, t, c):
        self.read = z
        return self.value.expand(len(z), 2)


def silent(sde, d, value=0.0):
    process = StateProcess(sde, d)
    noise = NoiseEstimate(Silent(value), process)
    return Model(DataSpec((2,)), StateDiffusion(noise, (2,)), Inference(process=process), ScoreMatching())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["langevin", "third_order", "own"])
def test_a_silent_network_is_exact_on_a_gaussian(name):
    """x ~ N(0, d^2): both reverse equations give it back, and the flow's bound is its density."""
    d, sde = 0.7, equations()[name]
    model = silent(sde, d)
    for sampler, n, atol in (("heun", 120, 0.04), ("ode", 120, 0.04), ("euler_maruyama", 150, 0.06)):
        x = model.sample(2000, seed=0, batch=2000, sampler=sampler, evaluations=n)
        torch.testing.assert_close(x.std(0), torch.full((2,), d), atol=atol, rtol=0)
    x = d * torch.randn(200, 2)
    found = model.log_likelihood(x, trace="exact", evaluations=160)
    assert found.kind == "lower bound"
    gap = Normal(0.0, d).log_prob(x).sum(1) - found.value
    assert gap.mean().item() == pytest.approx(0, abs=0.1)


def test_the_network_reads_and_says_unit_variance():
    """What it reads has variance one at all times, and a constant error counts alike where noise enters."""
    sde = named("langevin")
    assert told(sde) == [1]
    assert told(named("third_order")) == [2]
    assert told(given(**OWN)) == [0, 1]
    x, errors = 0.7 * torch.randn(8000, 2), []
    for value in (0.0, 0.5):
        torch.manual_seed(1)
        model = silent(sde, 0.7, value)
        errors.append(model(Batch(x))["noise"].mean())
    read = model.generative.noise.net.read
    torch.testing.assert_close(read.square().mean(0), torch.ones(4), atol=0.03, rtol=0)
    left = torch.stack(
        [model.generative.noise.process.moments(t[None]).left[0, 1] for t in torch.linspace(1e-3, 1, 200)]
    )
    assert (errors[1] - errors[0]).item() == pytest.approx(0.25 * left.square().mean().item(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"sde": "vp"}, {"sde": "ve"}, {"sde": "sub_vp"}, {"sde": "langevin"}])
def test_a_mixture_is_learnt(options):
    """Points near -1 and 1 come back, half and half."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = build("score_sde", DataSpec((1,)), width=32, blocks=1, timesteps=200, **options)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(1000):
        optimiser.zero_grad()
        x = torch.randint(0, 2, (256, 1)) * 2.0 - 1 + 0.1 * torch.randn(256, 1)
        model.objectives[0].total(model(Batch(x))).backward()
        optimiser.step()
    how = {"sampler": "heun", "evaluations": 60}
    x = model.eval().sample(1000, seed=0, batch=1000, **how)
    assert (x > 0).float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert ((x.abs() - 1).abs() < 0.4).float().mean() > 0.9


def test_options_that_do_not_fit_are_refused():
    spec = DataSpec((1, 8, 8), levels=17)
    for options, message in (
        ({"sde": "vpp"}, "Unknown sde"),
        ({"drift": (1.0, 2.0), "diffusion": (1.0, 2.0)}, "m \\* m numbers"),
        ({"drift": (-1.0, 0.0, 0.0, -1.0), "diffusion": (0.0, 0.0, 0.0, 1.0)}, "does not reach every part"),
        ({"beta_min": 30.0}, "beta_min <= beta_max"),
        ({"sde": "ve", "sigma_min": 60.0}, "sigma_min < sigma_max"),
        ({"timesteps": 1}, "at least 2 steps"),
    ):
        with pytest.raises(ValueError, match=message):
            build("score_sde", spec, **options)
    model = build("score_sde", spec, sde="langevin", width=8)
    for how, message in (({"sampler": "ddim"}, "state of one part"), ({"evaluations": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            model.sample(1, **how)
    with pytest.raises(ValueError, match="variances >= 0"):
        LinearSDE(-torch.eye(2), torch.eye(2), *clock(1.0, 1.0))
    assert math.isfinite(model.sample(2, evaluations=4).float().mean())
