"""Likelihoods against closed forms: a linear-Gaussian autoencoder, a mixture on levels, a flow of known density."""

import itertools
import math

import pytest
import torch
from torch import nn

from genrep import models
from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model, Unsupported, Way, seeded
from genrep.distributions.basic import Gaussian
from genrep.distributions.domains import domain_for
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.evaluation.annealed import anneal, annealed, bidirectional, temperatures_of
from genrep.evaluation.bits import log_mean_exp
from genrep.evaluation.likelihood import likelihood, methods

W = torch.tensor([[1.0, 0.5], [-0.7, 1.2], [0.3, 0.3]], dtype=torch.float64)
NOISE = 0.4


class Linear(Conditional):
    """N(A v, std^2) for a fixed matrix."""

    def __init__(self, matrix, std):
        super().__init__()
        self.matrix, self.log_std = nn.Parameter(matrix), math.log(std)

    def forward(self, v, *, y=None):
        mean = v @ self.matrix.T
        return Gaussian(mean, torch.full_like(mean, self.log_std))


def linear(width=1.0):
    """z ~ N(0, I), x ~ N(W z, NOISE^2): log p(x) is that of N(0, W W' + NOISE^2); q is a diagonal one."""
    precision = W.T @ W / NOISE**2 + torch.eye(2).double()
    posterior = Linear(torch.linalg.solve(precision, W.T) / NOISE**2, width * 0.35)
    model = Model(
        DataSpec((3,)),
        LatentVariable(StandardNormal(2).double(), Linear(W, NOISE)),
        Inference(latent=posterior),
    ).double()
    truth = torch.distributions.MultivariateNormal(torch.zeros(3).double(), W @ W.T + NOISE**2 * torch.eye(3).double())
    with seeded(5):
        x = truth.sample((60,))
    return model, x, truth.log_prob(x)


def test_importance_bounds_rise_to_the_truth():
    model, x, truth = linear(width=1.5)
    means = [float(likelihood(model, x, method="importance", draws=k, seed=0).nats.mean()) for k in (1, 4, 30, 1500)]
    assert means[0] < means[1] < means[2] < float(truth.mean()) + 0.01
    assert means[3] == pytest.approx(float(truth.mean()), abs=0.01)
    elbo = likelihood(model, x, method="elbo", draws=50, seed=0)
    gap = float((truth - elbo.nats).mean())
    assert gap > 0.1, "a posterior that is off costs its divergence"
    assert elbo.kind == "lower bound"


def test_monte_carlo_error_is_what_repeats_show():
    model, x, _ = linear(width=1.5)
    runs = [likelihood(model, x, method="importance", draws=5, seed=s) for s in range(30)]
    spread = torch.stack([r.nats.mean() for r in runs]).std()
    stated = sum(r.monte_carlo_error for r in runs) / len(runs)
    assert stated == pytest.approx(float(spread), rel=0.4)
    assert runs[0].estimate().protocol["kind"] == "importance-weighted bound"
    assert runs[0].estimate().protocol["draws"] == 5


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_annealing_meets_the_closed_form(start):
    model, x, truth = linear()
    with seeded(0):
        weights, acceptance = annealed(model, x[:40], chains=12, temperatures=60, leapfrog=4, start=start)
    error = log_mean_exp(weights, 0) - truth[:40]
    spread = ((weights - log_mean_exp(weights, 0)).exp().var(0) / 12).sqrt()
    assert float((error.abs() / spread.clamp_min(1e-3)).median()) < 2
    assert float(error.mean()) == pytest.approx(0, abs=0.06)
    assert 0.5 < acceptance < 0.95, "the steps are tuned towards 0.65"
    found = likelihood(model, x[:40], method="annealed", draws=12, temperatures=60, leapfrog=4, start=start, seed=0)
    assert torch.equal(found.nats, log_mean_exp(weights, 0))
    assert abs(float((found.nats - truth[:40]).mean())) < 4 * found.monte_carlo_error + 0.01
    assert found.evaluations == 16 * 60 * 6


def test_mean_weight_is_unbiased_with_few_temperatures():
    """E w = p(x) for any number of temperatures and any fixed step: the test that a wrong weight fails."""
    model, x, truth = linear()
    point = x[:1].expand(3000, -1)  # 3,000 groups of chains of one example
    with seeded(1):
        weights, _ = annealed(model, point, chains=2, temperatures=4, leapfrog=2)
    mean = (weights - truth[0]).exp()
    assert float(mean.mean()) == pytest.approx(1, abs=4 * float(mean.std()) / 6000**0.5)
    assert float(mean.std()) / 6000**0.5 < 0.1


def test_both_sides_bracket_the_truth_and_close():
    model, _, _ = linear()
    gaps = {}
    for t in (5, 200):
        with seeded(2):
            found = bidirectional(model, 40, chains=8, temperatures=t, leapfrog=3)
        gaps[t] = float((found.upper - found.lower).mean())
    assert gaps[5] > gaps[200] > -0.02
    assert gaps[200] < 0.15


def test_annealing_in_a_space_without_a_model():
    """From N(0, 1) to 5 N(3, 0.5^2): the log of the constant is log 5."""
    base = Gaussian(torch.zeros(1).double(), torch.zeros(1).double(), batched=False)
    other = Gaussian(torch.tensor([3.0]).double(), torch.tensor([math.log(0.5)]).double(), batched=False)
    how = {"leapfrog": 5}

    def target(z):
        return other.log_prob(z) + math.log(5)

    with seeded(0):
        path = temperatures_of(100)
        steps = anneal(base.sample((16, 4)), base.log_prob, target, path, **how).steps
        up = anneal(base.sample((400, 4)), base.log_prob, target, path, steps=steps, **how)
        down = anneal(other.sample((400, 4)), base.log_prob, target, path.flip(0), steps=steps.flip(0), **how)
    assert log_mean_exp(up.log_weight, 0).mean().item() == pytest.approx(math.log(5), abs=0.05)
    assert log_mean_exp(down.log_weight, 0).mean().item() == pytest.approx(-math.log(5), abs=0.05)
    assert up.z.mean().item() == pytest.approx(3, abs=0.05)
    assert up.z.std().item() == pytest.approx(0.5, abs=0.05)


class Mixed(Conditional):
    """A mixture over four levels in two cells, exact: P(x) = 0.3 prod a(x_i) + 0.7 prod b(x_i)."""

    measure = "mass"
    table = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.05, 0.05, 0.1, 0.8]], dtype=torch.float64)

    def forward(self, *, y=None):
        raise NotImplementedError

    def mass(self, x, y):
        level = ((x + 1) * 1.5).round().long()
        each = self.table.log()[:, level].sum(-1)  # (2, B)
        return (each + torch.tensor([0.3, 0.7]).double().log()[:, None]).logsumexp(0)

    def likelihoods(self, inference):
        return {"exact": Way(self.mass, "exact", "mass")}


class Chosen(Conditional):
    """The component of the mixture as a latent variable: 0.3 and 0.7."""

    measure = "mass"

    def forward(self, *inputs, y=None):
        logits = torch.tensor([0.3, 0.7]).double().log()
        return torch.distributions.Categorical(logits=logits.expand(len(inputs[0]), 2) if inputs else logits)


class Component(Conditional):
    measure = "mass"

    def forward(self, z, *, y=None):
        return _Product(Mixed.table[z])


class _Product(torch.distributions.Distribution):
    def __init__(self, table):
        super().__init__(torch.Size([len(table)]), torch.Size([2]), validate_args=False)
        self.table = table

    def log_prob(self, x):
        level = ((x + 1) * 1.5).round().long()
        return self.table.log().unsqueeze(1).expand(-1, 2, -1).gather(2, level.unsqueeze(-1)).squeeze(-1).sum(1)


SPEC = DataSpec((2,), levels=4)
ALL = torch.tensor(list(itertools.product(range(4), repeat=2)))


def test_a_known_mixture_has_its_bits_by_every_way():
    """Exact enumeration, and importance weights over the component: -E log2 P / D."""
    exact = Model(SPEC, Mixed(), Inference(), domain=domain_for(SPEC))
    exact.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    masses = likelihood(exact, ALL).nats.exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)
    truth = 0.3 * (Mixed.table[0][:, None] * Mixed.table[0]) + 0.7 * (Mixed.table[1][:, None] * Mixed.table[1])
    torch.testing.assert_close(masses.view(4, 4), truth.to(masses), rtol=1e-5, atol=0)
    found = likelihood(exact, ALL)
    assert (found.kind, found.dequantisation, found.monte_carlo_error) == ("exact", "none", 0.0)
    assert found.estimate().value == pytest.approx(float(-truth.log2().mean() / 2), rel=1e-5)
    assert found.estimate().protocol["bit_depth"] == 2
    with pytest.raises(ValueError, match="draws nothing"):
        likelihood(exact, ALL, draws=4)
    hidden = Model(SPEC, LatentVariable(Chosen(), Component()), Inference(latent=Chosen()), domain=domain_for(SPEC))
    hidden.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    bound = likelihood(hidden, ALL, method="importance", draws=1000, seed=0)
    assert bound.estimate().value == pytest.approx(float(-truth.log2().mean() / 2), rel=0.01)
    with pytest.raises(Unsupported, match="continuous"):
        likelihood(hidden, ALL, method="annealed")


class Triangle(Conditional):
    """The density (1 + s (u - 1/2)) on [0, K]^2 by cells, u the place in the cell: its mass on every cell is known."""

    def forward(self, *, y=None):
        raise NotImplementedError

    def likelihoods(self, inference):
        def f(x, y):
            level = (x + 1) * 1.5 + 0.5  # in [0, 4]
            place = level - level.floor()
            return ((1 + 1.8 * (place - 0.5)) / 4 * 1.5).log().sum(1)

        return {"exact": Way(f, "exact", "density")}


def test_dequantised_density_is_a_bound_that_importance_weights_close():
    """The true mass of every cell is 1/4: 2 bits a value. Uniform noise costs -E log2(1 + s (u - 1/2))."""
    model = Model(SPEC, Triangle(), Inference(), domain=domain_for(SPEC))
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    x = ALL.repeat(60, 1)
    one, many = (likelihood(model, x, draws=k, seed=0) for k in (1, 200))
    u = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    expected = 2 - float(torch.trapezoid((1 + 1.8 * (u - 0.5)).log2(), u))
    assert one.estimate().value == pytest.approx(expected, abs=5 * one.estimate().standard_error)
    assert (one.kind, one.measure, one.dequantisation) == ("lower bound", "mass", "uniform")
    assert many.estimate().value == pytest.approx(2, abs=0.005)
    assert many.kind == "importance-weighted bound"
    assert many.monte_carlo_error < one.monte_carlo_error / 5


def test_methods_options_and_refusals():
    torch.manual_seed(0)
    vae = models.build("vae", DataSpec((1, 8, 8), levels=4), latent=2, width=8)
    x = torch.randint(0, 4, (6, 1, 8, 8), dtype=torch.uint8)
    assert methods(vae) == ["elbo", "importance", "annealed"]
    assert likelihood(vae, x).method == "elbo"
    found = likelihood(vae, x, method="annealed", draws=2, temperatures=5, leapfrog=2, seed=0)
    assert (found.measure, found.kind) == ("mass", "annealed estimate")
    assert found.estimate().protocol["options"]["temperatures"] == 5
    assert found.nats.shape == (6,)
    with pytest.raises(ValueError, match="Did you mean 'importance'"):
        likelihood(vae, x, method="importnce")
    with pytest.raises(ValueError, match="at least 1 draw"):
        likelihood(vae, x, draws=0)
    with pytest.raises(ValueError, match="option of method elbo"):
        likelihood(vae, x, steps=3)
    with pytest.raises(ValueError, match="start of prior or posterior"):
        likelihood(vae, x, method="annealed", start="middle")
    with pytest.raises(Unsupported, match="cannot log_likelihood"):
        likelihood(models.build("dcgan", DataSpec((1, 8, 8), levels=4)), x)
    flow = models.build("real_nvp", DataSpec((1, 8, 8), levels=4))
    with pytest.raises(Unsupported, match="needs a prior and a likelihood"):
        likelihood(flow, x, method="annealed")
    assert vae(Batch(x))["rate"].shape == (6,)


def test_gradients_do_not_stay_after_annealing():
    model, x, _ = linear()
    annealed(model, x[:2], chains=2, temperatures=3, leapfrog=1)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("options", "said"), [({}, "uniform"), ({"dequantisation": "variational"}, "variational")])
def test_dequantisation_is_named(options, said):
    torch.manual_seed(0)
    spec = DataSpec((2,), levels=3)
    found = likelihood(
        models.build("real_nvp", spec, width=8, **options), torch.tensor([[0, 2], [1, 1]]), draws=2, seed=0
    )
    assert (found.dequantisation, found.measure, found.levels) == (said, "mass", 3)
