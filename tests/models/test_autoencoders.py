"""Autoencoders without a prior, and the importance-weighted bound: closed forms of linear models."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genrep.contracts import Batch, DataSpec, Inference, Model, Unsupported
from genrep.distributions.corruption import Corruption
from genrep.distributions.heads import Corrupted, Likelihood, PointHead
from genrep.distributions.latent import Decoded, LatentVariable, StandardNormal
from genrep.models import build, get, names
from genrep.objectives.autoencoding import Autoencoding, Coded
from genrep.objectives.importance import ImportanceWeighted
from genrep.objectives.sparsity import Sparsity
from tests.models.test_vae import Linear


class Matrix(nn.Linear):
    """A linear network that ignores the condition."""

    def forward(self, x, c=None):
        return super().forward(x)


def linear(latent, corruption=None):
    """A linear autoencoder of vectors of five values, with a squared error."""
    data = DataSpec((5,))
    posterior = PointHead(Matrix(5, latent))
    if corruption is not None:
        posterior = Corrupted(posterior, corruption)
    decoder = Likelihood(Matrix(latent, 5), data, "squared_error")
    return Model(data, Decoded(decoder), Inference(latent=posterior), Autoencoding())


def whitened(n):
    """n points whose sample mean is 0 and whose sample covariance is diag(9, 4, 2, 1, 1/4), both exactly, rotated."""
    x = torch.randn(n, 5)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov(correction=0))).T
    variances = torch.tensor([9.0, 4.0, 2.0, 1.0, 0.25])
    return x * variances.sqrt() @ torch.linalg.qr(torch.randn(5, 5)).Q, variances


def test_linear_autoencoder_is_principal_component_analysis(play):
    """Its least squared error is the sum of the discarded eigenvalues (Baldi & Hornik, 1989)."""
    torch.manual_seed(0)
    x, variances = whitened(300)
    model = play(linear(2), lambda: Batch(x), 1200, lr=2e-2)
    assert model(Batch(x))["distortion"].mean().item() == pytest.approx(variances[2:].sum().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "strength", "shrink"),
    [
        ("gaussian", 1.0, lambda s: s / (s + 1)),  # the Wiener filter
        ("masking", 0.0, lambda s: torch.ones_like(s)),
    ],
)
def test_linear_denoiser_is_the_wiener_filter(play, name, strength, shrink):
    """Trained on x + noise, the reconstruction of clean x is S (S + strength^2)^-1 x in the basis of S = cov(x)."""
    torch.manual_seed(0)
    x, variances = whitened(500)
    model = play(linear(5, Corruption(name, strength)), lambda: Batch(x), 2000, lr=1e-2, average=0.995)
    directions = torch.linalg.eigh(x.T.cov()).eigenvectors.flip(1).T
    with torch.no_grad():
        bias = model.reconstruct(torch.zeros(1, 5))
        gain = ((model.reconstruct(directions) - bias) * directions).sum(1)
    torch.testing.assert_close(gain, shrink(variances), atol=0.03, rtol=0)


def test_corruption_changes_what_it_says_and_only_in_training():
    torch.manual_seed(0)
    x = torch.ones(200, 500)
    masked = Corruption("masking", 0.3)(x)
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert (masked == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    noisy = Corruption("gaussian", 0.3)(x) - x
    assert noisy.std().item() == pytest.approx(0.3, abs=0.01)
    model = build("denoising_ae", DataSpec((6,)), latent=2, width=8)
    x = torch.randn(4, 6)
    q = model.inference.latent
    assert torch.equal(q.eval()(x).mean, q(x).mean)
    assert not torch.equal(q.train()(x).mean, q(x).mean)


def sparsity_at(z, rho):
    coded = Coded(z, None, z, z, z)
    return Sparsity(rho, 1.0)(None, coded)["sparsity"]


def test_sparsity_is_its_divergence():
    """Zero where every unit's mean is rho, else sum_j KL(rho || mean_j), even where units are always on or off."""
    rho = 0.25
    mean = torch.tensor([0.1, 0.25, 0.8])
    z = torch.stack([mean - 0.05, mean + 0.05])
    assert sparsity_at(torch.tensor([[0.0, 0.5], [0.5, 0.0]]), rho).item() == pytest.approx(0, abs=1e-6)
    p, q = torch.distributions.Bernoulli(rho), torch.distributions.Bernoulli(mean)
    expected = torch.distributions.kl_divergence(p, q).sum()
    torch.testing.assert_close(sparsity_at(z, rho), expected)
    z = torch.tensor([[0.0, 1.0]], requires_grad=True)
    sparsity_at(z, rho).backward()
    assert z.grad.isfinite().all()


def test_sparse_codes_reach_their_activation(play):
    torch.manual_seed(0)
    model = build("sparse_ae", DataSpec((4,)), latent=12, width=32, rho=0.1, sparsity=10.0)
    x = torch.randn(256, 4)
    play(model, lambda: Batch(x), 400, lr=3e-3)
    z = model.encode(x)
    assert z.min() >= 0
    assert z.max() <= 1
    torch.testing.assert_close(z.mean(0), torch.full((12,), 0.1), atol=0.05, rtol=0)


def linear_gaussian(draws, shift=0.0):
    """p(x) = N(0, W W' + s^2 I) with its exact posterior, or one whose mean is off by `shift`."""
    torch.manual_seed(0)
    w = torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64)).Q * torch.tensor([1.5, 0.7], dtype=torch.float64)
    s, zero = 0.6, torch.zeros(4, dtype=torch.float64)
    m = (w.T @ w).diagonal() + s**2
    likelihood = Linear(w, zero, torch.full((4,), math.log(s), dtype=torch.float64))
    posterior = Linear(w.T / m[:, None], zero[:2] + shift, 0.5 * (s**2 / m).log())
    generative = LatentVariable(StandardNormal(2).double(), likelihood)
    model = Model(DataSpec((4,)), generative, Inference(latent=posterior), ImportanceWeighted(draws))
    return model, MultivariateNormal(zero, w @ w.T + s**2 * torch.eye(4, dtype=torch.float64))


def test_importance_weighted_bound_is_tight_at_the_exact_posterior():
    model, exact = linear_gaussian(draws=5)
    x = exact.sample((50,))
    terms = model(Batch(x))
    torch.testing.assert_close(-terms["bound"], exact.log_prob(x))
    torch.testing.assert_close(terms["elbo"], exact.log_prob(x))


def test_importance_weighted_bound_grows_with_its_draws():
    """ELBO = L_1 < L_4 < L_64 <= log p(x), and one draw is the VAE's bound (Burda et al., 2016, theorem 1)."""
    found = []
    for draws in (1, 4, 64):
        model, exact = linear_gaussian(draws, shift=0.4)
        x = exact.sample((4000,))
        terms = model(Batch(x))
        gap = (exact.log_prob(x) + terms["bound"]).mean().item()
        found.append(gap)
        if draws == 1:
            assert torch.equal(-terms["bound"], terms["elbo"])
            precision = (-2 * model.inference.latent.log_std).exp()
            assert gap == pytest.approx(0.5 * 0.4**2 * precision.sum().item(), rel=0.05)
    assert found[0] > 2 * found[1] > 4 * found[2] > 0


@pytest.mark.parametrize("name", ["autoencoder", "denoising_ae", "sparse_ae"])
def test_without_a_prior_there_are_no_samples(name):
    model = build(name, DataSpec((1, 8, 8), levels=17))
    assert model.capabilities == {"encode", "decode", "reconstruct", "features"}
    with pytest.raises(Unsupported, match=r"cannot sample: it has no prior.*Models that can sample: .*vae"):
        model.sample(2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("autoencoder", {"latent": 0}, "latent >= 1"),
        ("denoising_ae", {"strength": -0.1}, "strength >= 0"),
        ("denoising_ae", {"corruption": "masking", "strength": 1.5}, "a probability"),
        ("denoising_ae", {"corruption": "salt"}, "Unknown corruption of denoising_ae 'salt'"),
        ("sparse_ae", {"rho": 1.0}, r"rho in \(0, 1\)"),
        ("sparse_ae", {"sparsity": -1.0}, "sparsity >= 0"),
        ("iwae", {"draws": 0}, "draws >= 1"),
        ("iwae", {"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)


def test_the_model_of_the_page_trains(play):
    torch.manual_seed(0)
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text(encoding="utf8")
    found = {}
    exec(next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "energy_ae" in code), found)
    model = found["energy_ae"](DataSpec((3,)), latent=2)
    x = torch.randn(128, 3)
    before = model(Batch(x))
    after = play(model, lambda: Batch(x), 60)(Batch(x))
    assert after["matching"] < 0.5 * before["matching"]
    assert after["distortion"].mean() < before["distortion"].mean()


def test_the_page_names_every_autoencoder():
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text(encoding="utf8")
    for name in names():
        if get(name).family in ("autoencoder", "adversarial"):
            assert f"| `{name}` |" in page, name
