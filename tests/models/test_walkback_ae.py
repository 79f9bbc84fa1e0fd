"""Walk-back training, and the chain that samples."""

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model
from genrep.distributions.basic import Gaussian
from genrep.distributions.walkback import DenoisingChain
from genrep.models import build
from genrep.objectives.walkback import WalkBack

NOISE = 0.5


class Corruption(Conditional):
    def forward(self, x, *, y=None):
        return Gaussian(x, torch.tensor(NOISE).log().expand_as(x))


class Posterior(Conditional):
    """p(x | x~) of x ~ N(mean, 1) and x~ = x + NOISE eps, with an error."""

    def __init__(self, mean, error=0.0):
        super().__init__()
        self.mean, self.error = mean, nn.Parameter(torch.tensor(error))

    def forward(self, x, *, y=None):
        gain = 1 / (1 + NOISE**2)
        std = torch.tensor(NOISE**2 * gain).sqrt()
        return Gaussian(self.mean + gain * (x - self.mean) + self.error, std.log().expand_as(x))


def test_with_the_exact_posterior_the_chain_comes_to_the_data():
    """Theorem 1: the states before the last mean are N(mean, 1), from noise around zero."""
    torch.manual_seed(0)
    chain = DenoisingChain(Corruption(), Posterior(3.0), (1,))
    x = chain(walks=60).sample((20_000,))
    gain = 1 / (1 + NOISE**2)  # the mean of p(x | x~) of x~ ~ N(mean, 1 + NOISE^2)
    assert x.mean().item() == pytest.approx(3.0, abs=0.03)
    assert x.std().item() == pytest.approx((gain**2 * (1 + NOISE**2)) ** 0.5, abs=0.02)
    short = chain(walks=2).sample((20_000,))
    assert short.mean() < 2.9


@pytest.mark.parametrize("steps", [1, 3])
def test_the_terms_are_those_of_the_walk(steps):
    """E -log p(x | x~_k): the walk of the exact chain stays in the joint law of data and noise only for k = 1."""
    torch.manual_seed(0)
    model = Model(DataSpec((1,)), DenoisingChain(Corruption(), Posterior(0.0), (1,)), Inference(), WalkBack(steps))
    x = torch.randn(40_000, 1)
    found = model(Batch(x))["distortion"].mean()
    gain, variance, expected = 1 / (1 + NOISE**2), NOISE**2 / (1 + NOISE**2), []
    # x~_k = c_k x + noise of variance v_k, both known: c_1 = 1, then c -> gain c, v -> gain^2 v + variance + NOISE^2
    c, v = 1.0, NOISE**2
    for _ in range(steps):
        error = (1 - gain * c) ** 2 + gain**2 * v
        expected.append(0.5 * error / variance + 0.5 * torch.log(torch.tensor(2 * torch.pi * variance)))
        c, v = gain * c, gain**2 * v + variance + NOISE**2
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), abs=0.02)


def test_no_gradient_passes_through_the_walk():
    torch.manual_seed(0)
    model = Model(DataSpec((1,)), DenoisingChain(Corruption(), Posterior(0.0, 0.3), (1,)), Inference(), WalkBack(2))
    x = torch.randn(1000, 1)
    torch.manual_seed(1)
    model(Batch(x))["distortion"].mean().backward()
    found = model.generative.reconstruction.error.grad.clone()
    torch.manual_seed(1)
    chain, parts = model.generative, []
    noisy = chain.corruption(x).sample()
    for _ in range(2):
        p = chain.reconstruction(noisy.detach())
        parts.append((p.mean.detach() - x).mean() / (NOISE**2 / (1 + NOISE**2)))
        noisy = chain.corruption(p.sample()).sample()
    torch.testing.assert_close(found, torch.stack(parts).mean())


@pytest.mark.parametrize(
    ("options", "message"), [({"beta_1": 1.0}, "0 < beta_1 < 1"), ({"walk_back": 0}, "walk_back >= 1")]
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("walkback_ae", DataSpec((1, 8, 8), levels=17), **options)
    with pytest.raises(ValueError, match="walks >= 1"):
        build("walkback_ae", DataSpec((1, 8, 8), levels=17)).sample(2, walks=0)
