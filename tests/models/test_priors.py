"""Learnt priors: densities that integrate to one, limits that are known, bounds that learn."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.heads import GaussianHead, Likelihood
from genrep.distributions.latent import LatentVariable, rate
from genrep.distributions.priors import GaussianMixture, Mixture, VampPrior
from genrep.models import build
from genrep.objectives.autoencoding import Autoencoding, Rate
from tests.models.test_autoencoders import Matrix

NAMES = ["gmm_vae", "vamp_vae"]


def mixture(k=3, d=2):
    torch.manual_seed(0)
    parameters = torch.randn(k, d), 0.3 * torch.randn(k, d), torch.randn(k)
    return Mixture(*(p.double() for p in parameters))


def test_mixture_is_a_density_and_draws_follow_it():
    """It sums to one over a fine grid, and the grid's mean and second moments are those of draws."""
    p = mixture()
    axis = torch.linspace(-9, 9, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = p.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(mass @ grid, p.mean)
    z = p.sample((200_000,))
    torch.testing.assert_close(z.mean(0), p.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.T @ z / len(z), (grid * mass[:, None]).T @ grid, atol=0.05, rtol=0)


def test_mixture_against_torch():
    p = mixture(4, 3)
    parts = Independent(Normal(p.components.mean, p.components.log_std.exp()), 1)
    other = MixtureSameFamily(Categorical(logits=p.log_weight), parts)
    z = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(z), other.log_prob(z))


def test_one_component_is_a_gaussian_and_the_start_is_near_the_standard_normal():
    torch.manual_seed(0)
    prior = GaussianMixture(2, 2000)
    z = torch.randn(500, 2)
    standard = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(prior().log_prob(z), standard, atol=0.5, rtol=0)
    single = GaussianMixture(2, 1)
    expected = Normal(single.mean[0], single.log_std[0].exp()).log_prob(z).sum(1)
    torch.testing.assert_close(single().log_prob(z), expected)


class Code(torch.nn.Module):
    """Mean x, standard deviation 1/2."""

    def forward(self, x, c=None):
        return torch.stack([x, torch.full_like(x, math.log(0.5))], 1)


def test_vamp_prior_with_the_data_as_inputs_is_the_aggregate_posterior():
    """Then the mean rate is the mutual information of x and z: for separated codes log N."""
    x = 10 * torch.arange(8.0)[:, None]
    posterior = GaussianHead(Code())
    prior = VampPrior(posterior, (1,), 8)
    with torch.no_grad():
        prior.inputs.copy_(x)
    q = posterior(x)
    torch.testing.assert_close(rate(q, prior(), q.rsample()), torch.full((8,), math.log(8)))
    z = torch.tensor([[3.0]])
    by_hand = torch.stack([q_k.log_prob(z[0, 0]).exp() for q_k in map(Normal, x[:, 0], [0.5] * 8)])
    torch.testing.assert_close(prior().log_prob(z).exp(), by_hand.mean()[None])


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_a_learnt_prior_brings_the_rate_down_to_the_information(kind, play):
    """At a fixed q, for x in two clusters, z has two parts of variance 0.34 and is 0.25 given x.

    The least rate is then h(z) - h(z | x); two pseudo-inputs, whose parts have variance 0.25, pay a little more.
    """
    torch.manual_seed(0)
    posterior = GaussianHead(Code())
    prior = GaussianMixture(1, 6) if kind == "mixture" else VampPrior(posterior, (1,), 2)
    data = DataSpec((1,))
    generative = LatentVariable(prior, Likelihood(Matrix(1, 1), data, "squared_error"))
    model = Model(data, generative, Inference(latent=posterior), Autoencoding(Rate()))
    draw = lambda: Batch(2.0 * (2.0 * torch.randint(2, (256, 1)) - 1) + 0.3 * torch.randn(256, 1))  # noqa: E731
    far = torch.stack([model(draw())["rate"].mean() for _ in range(20)]).mean().item()
    play(model, draw, 500, lr=3e-2, average=0.95)
    found = torch.stack([model(draw())["rate"].mean() for _ in range(100)]).mean().item()
    least = math.log(2) + (0.5 * math.log(0.34 / 0.25) if kind == "mixture" else 0.34 / 0.5 - 0.5)
    assert far > 2 * least
    assert found == pytest.approx(least, abs=0.02)


def test_encoder_is_counted_once_in_the_vamp_vae():
    model = build("vamp_vae", DataSpec((4,)), latent=2, width=8, components=5)
    assert model.generative.prior.posterior is model.inference.latent
    names = model.learnable(0, "model")
    assert len({id(p) for p in names.values()}) == len(names)
    assert model.sample(3, seed=0).shape == (3, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [({"components": 0}, "components >= 1"), ({"latent": 0}, "latent >= 1"), ({"beta": -1.0}, "beta >= 0")],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)
