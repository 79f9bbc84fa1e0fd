"""Latent regularisers: zero where codes follow the prior, positive elsewhere, with gradients to all that learns."""

from functools import partial

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.heads import Likelihood, PointHead
from genrep.distributions.latent import LatentVariable, Reparametrised, StandardNormal, draws
from genrep.distributions.priors import Hypersphere
from genrep.models import build
from genrep.objectives.autoencoding import Autoencoding, Coded
from genrep.objectives.matching import Matching
from genrep.transport.cramer_wold import cramer_wold, cramer_wold_normal
from genrep.transport.mmd import energy_distance, mmd
from genrep.transport.sinkhorn import sinkhorn_divergence
from genrep.transport.sliced import sliced_wasserstein

MATCHED = ["wae_mmd", "swae", "cramer_wold_ae", "sinkhorn_ae"]
WEIGHTS = {
    "wae_mmd": {"matching": 100.0},
    "swae": {"matching": 10.0},
    "cramer_wold_ae": {"matching": 1000.0},
    "sinkhorn_ae": {"matching": 100.0, "blur": 0.3},
}
QUICK = ["wae_mmd", *[pytest.param(name, marks=pytest.mark.slow) for name in MATCHED[1:]]]
DIVERGENCES = {
    "mmd": partial(mmd, unbiased=True),
    "sliced": sliced_wasserstein,
    "cramer_wold": cramer_wold,
    "cramer_wold_normal": lambda z, prior: cramer_wold_normal(z),
    "sinkhorn": partial(sinkhorn_divergence, blur=0.5),
    "energy": energy_distance,
}


def value(divergence, z, y=None, condition=0, scale=1.0, prior=None):
    generative = LatentVariable(prior or StandardNormal(2), PointHead(nn.Identity()))
    model = Model(DataSpec((2,)), generative, Inference())
    coded = Coded(z, y, z, z, z)
    return Matching(divergence, 1.0, condition, scale)(model, coded)["matching"]


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_zero_at_the_prior_and_positive_elsewhere(name):
    """Over repeated batches: at the prior far below the value of codes that are shifted, wider or collapsed."""
    divergence = DIVERGENCES[name]
    mean = lambda make: torch.stack([value(divergence, make(torch.randn(400, 2))) for _ in range(4)]).mean().item()  # noqa: E731
    matched = mean(lambda z: z)
    shifted, wide, collapsed = (mean(f) for f in (lambda z: z + 0.5, lambda z: 1.5 * z, lambda z: 0.3 * z))
    assert abs(matched) < 0.15 * min(shifted, wide, collapsed)
    assert min(shifted, wide, collapsed) > 0


def test_on_the_sphere_zero_for_uniform_codes_and_positive_for_a_cap():
    divergence = partial(sinkhorn_divergence, blur=0.3)
    uniform = torch.nn.functional.normalize(torch.randn(400, 3), dim=1)
    cap = torch.cat([uniform[:, :2], uniform[:, 2:].abs()], 1)
    matched, apart = (value(divergence, z, prior=Hypersphere(3)).item() for z in (uniform, cap))
    assert abs(matched) < 0.1 * apart
    assert apart > 0.1


def test_a_shift_costs_its_square():
    """Sinkhorn with cost |a - b|^2 / 2 gives |m|^2 / 2, sliced W_2^2 gives |m|^2 / D: exactly, for equal draws."""
    z, m = torch.randn(300, 2), torch.tensor([0.6, -0.8])

    class Fixed(StandardNormal):
        def forward(self, *, y=None):
            return Reparametrised(lambda n: z, None)

    assert value(sinkhorn_divergence, z + m, prior=Fixed(2)).item() == pytest.approx(0.5, rel=1e-3)
    directions = torch.eye(2)
    assert value(partial(sliced_wasserstein, directions=directions), z + m, prior=Fixed(2)).item() == pytest.approx(0.5)


def test_a_condition_is_matched_with_its_codes():
    """Codes that follow the prior only when labels are mixed cost nothing without the labels and much with them."""
    y = torch.arange(2).repeat(400)
    z = torch.randn(800, 2)
    z[:, 0] = z[:, 0].abs() * (2 * y - 1)
    blind = value(sinkhorn_divergence, z, y)
    seeing = value(sinkhorn_divergence, z, y, condition=2, scale=3.0)
    assert seeing > 5 * blind
    z = torch.randn(800, 2)
    assert value(sinkhorn_divergence, z, y, condition=2, scale=3.0) < 0.3 * seeing


def test_hypersphere_is_uniform_on_the_sphere():
    """Unit length, mean zero, covariance I / d (Muller, 1959)."""
    z = draws(Hypersphere(3)(), 50_000)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(50_000))
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=0.01, rtol=0)
    torch.testing.assert_close(z.T @ z / 50_000, torch.eye(3) / 3, atol=0.01, rtol=0)


@pytest.mark.parametrize("name", QUICK)
def test_training_matches_codes_to_the_prior(name, play):
    """From codes far off the prior, the aggregate posterior comes to mean 0 and covariance I."""
    model = build(name, DataSpec((3,)), latent=2, width=32, **WEIGHTS[name])
    mix = torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, -0.5], [0.0, 0.0, 0.1]])
    play(model, lambda: Batch(torch.randn(100, 3) @ mix), 250, lr=3e-3, average=0.98)
    with torch.no_grad():
        z = model.encode(torch.randn(4000, 3) @ mix)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.15, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.25, rtol=0)


def test_sphere_codes_are_on_the_sphere():
    model = build("sinkhorn_ae", DataSpec((5,)), latent=3, width=8, prior="hypersphere")
    torch.testing.assert_close(model.encode(torch.randn(4, 5)).norm(dim=1), torch.ones(4))
    assert model.sample(3, seed=0).shape == (3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MATCHED)
def test_labels_come_where_they_belong(name, play):
    corners = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
    model = build(name, DataSpec((2,), classes=3), latent=2, width=32, conditional=True, **WEIGHTS[name])

    def draw():
        y = torch.randint(3, (64,))
        return Batch(corners[y] + 0.3 * torch.randn(64, 2), y)

    play(model, draw, 600, lr=5e-3)
    y = torch.arange(3).repeat_interleave(300)
    x = model.sample(900, condition=y, seed=0)
    assert (torch.cdist(x, corners).argmin(1) == y).float().mean() > 0.95


@pytest.mark.parametrize("name", MATCHED)
def test_a_point_posterior_offers_no_likelihood(name):
    """Codes without a density give no bound, even where p(x | z) is a mass."""
    model = build(name, DataSpec((1, 8, 8), levels=17), likelihood="logistic")
    assert model.generative.measure == "mass"
    assert model.capabilities == {"sample", "encode", "decode", "reconstruct", "features"}


def test_matching_reads_the_draw_of_the_reconstruction():
    """One encoding: the codes compared are those decoded, and the penalty's gradient reaches the encoder."""
    data = DataSpec((3,))
    encoder, decoder = (lambda i, o: nn.Linear(i, o))(3, 2), nn.Linear(2, 3)
    seen = []

    class Net(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, c=None):
            seen.append(x)
            return self.inner(x)

    def divergence(z, prior):
        seen.append(z)
        return z.square().mean()

    model = Model(
        data,
        LatentVariable(StandardNormal(2), Likelihood(Net(decoder), data, "squared_error")),
        Inference(latent=PointHead(Net(encoder))),
        Autoencoding(Matching(divergence, 1.0)),
    )
    terms = model(Batch(torch.randn(6, 3)))
    _, decoded, matched = seen
    assert torch.equal(decoded, matched)
    terms["matching"].backward()
    assert encoder.weight.grad.abs().sum() > 0
    assert decoder.weight.grad is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wae_mmd", {"latent": 0}, "latent >= 1"),
        ("wae_mmd", {"kernel": "laplace"}, "Unknown kernel of wae_mmd 'laplace'"),
        ("wae_mmd", {"matching": -1.0}, "matching >= 0"),
        ("swae", {"directions": 0}, "directions >= 1"),
        ("sinkhorn_ae", {"prior": "torus"}, "Unknown prior of sinkhorn_ae 'torus'"),
        ("sinkhorn_ae", {"prior": "hypersphere", "latent": 1}, "latent >= 2 for a hypersphere"),
        ("sinkhorn_ae", {"blur": 0.0}, "blur > 0"),
        ("cramer_wold_ae", {"conditional": True, "condition_scale": 0.0}, "condition_scale > 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,), classes=2), **options)


def test_a_batch_of_one_is_refused_where_the_estimate_needs_two():
    model = build("wae_mmd", DataSpec((5,)), latent=2, width=8)
    with pytest.raises(ValueError, match="at least two points"):
        model(Batch(torch.randn(1, 5)))
