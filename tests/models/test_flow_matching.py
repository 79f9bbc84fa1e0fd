"""Flow matching against the exact velocity of a Gaussian."""

from itertools import permutations

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model
from genrep.distributions.basic import Point
from genrep.distributions.velocity import Straight, VelocityFlow
from genrep.models import build
from genrep.objectives.flow_matching import FlowMatching, matched

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=torch.float64)


@pytest.fixture
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Exact(Conditional):
    """E[eps - x | x_t] for x ~ N(MEAN, COVARIANCE), plus an error."""

    def __init__(self, error=0.0):
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error))

    def forward(self, x, t, *, y=None):
        t = t.to(x.dtype)[:, None, None]
        eye = torch.eye(2)
        total = (1 - t) ** 2 * COVARIANCE + t**2 * eye
        gain = (t * eye - (1 - t) * COVARIANCE) @ torch.linalg.inv(total)
        return Point(-MEAN + torch.einsum("bij,bj->bi", gain, x - (1 - t[..., 0]) * MEAN) + self.error)


@pytest.mark.usefixtures("_double")
def test_likelihood_is_exact_on_a_gaussian():
    data = MultivariateNormal(MEAN, COVARIANCE)
    x = data.sample((6,))
    ode = VelocityFlow(Exact(), (2,)).likelihoods(Inference())["ode"].f
    torch.testing.assert_close(ode(x, None, trace="exact"), data.log_prob(x), atol=1e-5, rtol=0)
    draws = ode(x.repeat(2000, 1), None).view(2000, 6)
    assert ((draws.mean(0) - data.log_prob(x)).abs() < 5 * draws.std(0) / 2000**0.5).all()


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_samples_converge_to_the_data_at_the_order_of_the_method(method, order):
    """The flow is linear here; its covariance after n and 2 n steps."""
    errors, per_step = [], {"euler": 1, "heun": 2, "rk4": 4}[method]
    for steps in (20, 40):
        torch.manual_seed(1)
        x = VelocityFlow(Exact(), (2,))(method=method, evaluations=steps * per_step).sample((3,))
        torch.manual_seed(1)
        start = torch.randn(3, 2)
        linear_map = torch.linalg.solve(start[1:] - start[:1], x[1:] - x[:1])
        errors.append((linear_map.T @ linear_map - COVARIANCE).abs().max().item())
    assert errors[1] < 0.1
    assert 0.7 * 2**order < errors[0] / errors[1] < 1.4 * 2**order


@pytest.mark.usefixtures("_double")
def test_the_exact_velocity_minimises_the_loss():
    """Any error adds its square to the loss; here 0.3^2, at the same draws of noise."""
    x = MultivariateNormal(MEAN, COVARIANCE).sample((60_000,))
    losses = []
    for error in (0.0, 0.3):
        torch.manual_seed(2)
        model = Model(DataSpec((2,)), VelocityFlow(Exact(error), (2,)), Inference(process=Straight()), FlowMatching())
        losses.append(model(Batch(x))["velocity"])
    excess = losses[1] - losses[0]
    assert excess.mean().item() == pytest.approx(0.09, abs=5 * excess.std().item() / 60_000**0.5)


def test_optimal_coupling_is_the_best_permutation():
    torch.manual_seed(0)
    x, noise = torch.randn(5, 1, 2, 2), torch.randn(5, 1, 2, 2)
    best = min((x - noise[list(order)]).square().sum().item() for order in permutations(range(5)))
    found = matched(x, noise)
    assert (x - found).square().sum().item() == pytest.approx(best, rel=1e-5)
    assert sorted(found.flatten().tolist()) == sorted(noise.flatten().tolist())


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "optimal"])
def test_a_table_is_learnt_to_its_entropy(coupling):
    mean, std = torch.tensor([3.0, -2.0]), torch.tensor([2.0, 0.5])
    model = build(
        "flow_matching", DataSpec((2,), mean=(3.0, -2.0), std=(2.0, 0.5)), coupling=coupling, width=32, blocks=1
    )
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(300):
        optimiser.zero_grad()
        model.objectives[0].total(model(Batch(mean + std * torch.randn(128, 2)))).backward()
        optimiser.step()
    model.eval()
    x = mean + std * torch.randn(2000, 2)
    exact = Normal(mean, std).log_prob(x).sum(1).mean().item()
    assert model.log_likelihood(x, trace="exact", evaluations=40).value.mean().item() == pytest.approx(exact, abs=0.12)
    samples = model.sample(2000, seed=0, batch=2000, evaluations=20)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.25, rtol=0)
    torch.testing.assert_close(samples.std(0), std, atol=0, rtol=0.15)


def test_images_with_levels_give_a_bound_of_a_mass():
    model = build("flow_matching", DataSpec((1, 8, 8), levels=17, classes=3), width=8, conditional=True)
    x = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8)
    found = model.log_likelihood(x, condition=1, evaluations=8)
    assert (found.kind, found.measure) == ("estimate", "mass")
    assert found.value.isfinite().all()
    assert model.sample(2, condition=0, evaluations=4).dtype == torch.uint8
    assert list(model.features(x, noise=0.3)) == ["level0", "level1", "middle"]


def test_options_that_do_not_fit_are_refused():
    spec = DataSpec((1, 8, 8), levels=17, classes=3)
    with pytest.raises(ValueError, match="tie the noise"):
        build("flow_matching", spec, coupling="optimal", conditional=True)
    model = build("flow_matching", spec, width=8)
    for how, message in (({"method": "rk5"}, "Valid: euler"), ({"method": "rk4", "evaluations": 3}, "at least 4")):
        with pytest.raises(ValueError, match=message):
            model.sample(1, **how)
