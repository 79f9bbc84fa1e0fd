"""The losses of diffusion models and how they choose steps."""

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.diffusion import Denoiser, Diffusion
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain, cosine
from genrep.objectives.denoising import Denoising
from genrep.objectives.timesteps import LossAware, Uniform, Weighted
from tests.known_diffusion import COVARIANCE, MEAN, close, closed_terms, exact


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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
