"""The VAE's bounds against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model
from genrep.distributions.basic import Gaussian
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import build
from genrep.objectives.autoencoding import Autoencoding, Rate


class Linear(Conditional):
    """N(A v + b, exp(log_std)^2)."""

    def __init__(self, a, b, log_std):
        super().__init__()
        self.a, self.b, self.log_std = nn.Parameter(a), nn.Parameter(b), nn.Parameter(log_std)

    def forward(self, v, *, y=None):
        return Gaussian(v @ self.a.T + self.b, self.log_std)


@pytest.fixture
def linear_gaussian():
    """p(x) = N(b, W W' + s^2 I), with the exact posterior N(M^-1 W'(x - b), s^2 M^-1), M diagonal by construction."""
    torch.manual_seed(0)
    w = torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64)).Q * torch.tensor([1.5, 0.7], dtype=torch.float64)
    b, s = torch.randn(4, dtype=torch.float64), 0.6
    m = (w.T @ w).diagonal() + s**2
    inverse = w.T / m[:, None]
    likelihood = Linear(w, b, torch.full((4,), math.log(s), dtype=torch.float64))
    posterior = Linear(inverse, -inverse @ b, 0.5 * (s**2 / m).log())
    objective = Autoencoding(Rate())
    model = Model(
        DataSpec((4,)), LatentVariable(StandardNormal(2).double(), likelihood), Inference(latent=posterior), objective
    )
    exact = MultivariateNormal(b, w @ w.T + s**2 * torch.eye(4, dtype=torch.float64))
    return model, exact


def test_bound_is_tight_at_the_exact_posterior(linear_gaussian):
    """E_q log p(x|z) - KL(q||p) = log p(x) when q is the posterior; Tipping & Bishop (1999), eq. 4."""
    model, exact = linear_gaussian
    x = exact.sample((200,))
    bound = model.log_likelihood(x, method="elbo", draws=4000)
    assert bound.kind == "lower bound"
    assert bound.measure == "density"
    torch.testing.assert_close(bound.value, exact.log_prob(x), atol=0.2, rtol=0)
    assert abs((bound.value - exact.log_prob(x)).mean()) < 0.01
    tight = model.log_likelihood(x, method="importance", draws=3)  # every weight equals p(x): no error at any K
    torch.testing.assert_close(tight.value, exact.log_prob(x))


def test_bound_is_its_closed_form_below_the_likelihood(linear_gaussian):
    """With a wrong posterior the gap is KL(q || p(z|x)), here of two Gaussians of equal covariance and shifted mean."""
    model, exact = linear_gaussian
    posterior, shift = model.inference.latent, torch.tensor([0.3, -0.4], dtype=torch.float64)
    gap = 0.5 * (shift * (-posterior.log_std).exp()).square().sum()
    with torch.no_grad():
        posterior.b += shift
    x = exact.sample((400,))
    bound = model.log_likelihood(x, method="elbo", draws=2000).value
    assert (exact.log_prob(x) - bound).mean().item() == pytest.approx(gap.item(), abs=0.02)
    importance = model.log_likelihood(x, method="importance", draws=500).value
    assert (exact.log_prob(x) - importance).mean().item() == pytest.approx(0, abs=0.02)
    terms = model(Batch(x))
    expected = -(terms["distortion"] + terms["rate"]).mean()
    assert expected.item() == pytest.approx(bound.mean().item(), abs=0.3)


@pytest.mark.slow
def test_likelihood_of_levels_is_a_mass():
    """Summed over all 3^4 images of a tiny VAE the importance-weighted estimate of p(x) comes to one."""
    torch.manual_seed(1)
    data = DataSpec((4,), levels=3)
    model = build("vae", data, latent=1, width=8)
    x = torch.cartesian_prod(*[torch.arange(3)] * 4)
    with torch.no_grad():
        found = model.log_likelihood(x, method="importance", draws=30_000)
    assert found.measure == "mass"
    assert found.value.exp().sum().item() == pytest.approx(1, abs=0.02)


def test_bernoulli_on_grey_values_offers_no_likelihood():
    model = build("vae", DataSpec((1, 8, 8), levels=17), likelihood="bernoulli")
    assert not [c for c in model.capabilities if c.startswith("log_likelihood")]
    with pytest.raises(NotImplementedError, match="cannot log_likelihood"):
        model.log_likelihood(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent >= 1"),
        ({"likelihood": "laplace"}, "Unknown likelihood of vae 'laplace'"),
        ({"latnet": 3}, "Did you mean 'latent'"),
        ({"network": "conv"}, "needs images"),
        ({"likelihood": "logistic"}, "real-valued"),
        ({"conditional": True}, "neither"),
        ({"beta": -1.0}, "beta >= 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("vae", DataSpec((5,)), **options)
