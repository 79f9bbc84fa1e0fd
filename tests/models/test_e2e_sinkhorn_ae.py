"""The noise generator learns where the codes are, for every condition; pyramid and diversity against closed forms."""

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.distributions.latent import draws
from genrep.distributions.priors import NoiseGenerator
from genrep.models import build
from genrep.nets.mlp import MLP
from genrep.nets.pyramid import enlarged, laplacian
from genrep.objectives.autoencoding import Coded
from genrep.objectives.end_to_end import Pyramid, diversity

CORNERS = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
SMALL = {"latent": 2, "width": 32, "noise": 4, "noise_width": 32, "noise_depth": 2, "blur": 0.3}


def draw():
    y = torch.randint(3, (64,))
    return Batch(CORNERS[y] + 0.3 * torch.randn(64, 2), y)


def test_gradients_of_the_divergence_reach_encoder_and_noise_generator():
    model = build("e2e_sinkhorn_ae", DataSpec((1, 8, 8), levels=17, classes=3), conditional=True, **SMALL)
    batch = Batch(torch.randint(17, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 3)
    model(batch)["matching"].backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {n for n, _ in model.named_parameters() if n.startswith(("generative.prior", "inference.latent"))}
    assert reached == expected


def test_noise_generator_puts_classes_where_the_encoder_puts_them(play):
    torch.manual_seed(0)
    data = DataSpec((2,), classes=3)
    model = play(build("e2e_sinkhorn_ae", data, conditional=True, **SMALL), draw, 250, lr=5e-3, average=0.95)
    y = torch.arange(3).repeat_interleave(300)
    with torch.no_grad():
        codes = model.encode(CORNERS[y] + 0.3 * torch.randn(900, 2)).view(3, 300, 2)
        noise = draws(model.generative.prior(y=y), 900).view(3, 300, 2)
    centres, spread = codes.mean(1), codes.std(1).mean()
    torch.testing.assert_close(noise.mean(1), centres, atol=0.5 * spread.item(), rtol=0)
    x = model.sample(900, condition=y, seed=0)
    assert (torch.cdist(x, CORNERS).argmin(1) == y).float().mean() > 0.97


def test_only_the_noise_generator_reads_the_condition():
    model = build("e2e_sinkhorn_ae", DataSpec((2,), classes=3), conditional=True, **SMALL).eval()
    assert "condition" in model.capabilities
    x = torch.randn(5, 2)
    torch.testing.assert_close(model.encode(x), model.encode(x, condition=0))
    with pytest.raises(ValueError, match="This model is conditional"):
        model.sample(2)
    with pytest.raises(ValueError, match="Expected 2 labels"):
        model.sample(2, condition=torch.tensor([0, 1, 2]))


def test_noise_laws():
    """Through an identity the draws are the noise: N(0, I), or uniform with mean 1/2 and variance 1/12."""

    class Same(torch.nn.Module):
        def forward(self, eps, c):
            return eps

    torch.manual_seed(0)
    normal = draws(NoiseGenerator(Same(), 2)(), 50_000)
    uniform = draws(NoiseGenerator(Same(), 2, "uniform")(), 50_000)
    torch.testing.assert_close(normal.T.cov(), torch.eye(2), atol=0.03, rtol=0)
    torch.testing.assert_close(uniform.mean(0), torch.full((2,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(uniform.T.cov(), torch.eye(2) / 12, atol=0.01, rtol=0)


def test_noise_generator_draws_one_code_for_each_condition():
    net = MLP((2,), [8], (3,), condition=4)
    prior = NoiseGenerator(net, 2, condition=4)
    z = draws(prior(y=torch.tensor([0, 1, 3, -1, 2])), 5)
    assert z.shape == (5, 3)
    assert z.requires_grad
    assert not prior(y=torch.tensor([0, 1])).sample().requires_grad


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (28, 28)])
def test_pyramid_loses_nothing(size):
    """The levels add up to the image again; constants live in the last level alone."""
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    levels = laplacian(x, 3)
    back = levels[-1]
    for level in levels[-2::-1]:
        back = level + enlarged(back, tuple(level.shape[2:]))
    torch.testing.assert_close(back, x)
    flat = laplacian(torch.full((1, 1, *size), 0.7, dtype=torch.float64), 3)
    assert max(level.abs().max().item() for level in flat[:-1]) < 1e-12
    torch.testing.assert_close(flat[-1], torch.full_like(flat[-1], 0.7))


def test_pyramid_loss_of_a_constant_shift():
    """Only the last level differs: 4^2 * pixels of that level * shift."""
    x = torch.rand(2, 1, 16, 16)

    class Shifted:
        mean = x + 0.1

    loss = Pyramid(1.0, 3)(None, Coded(x, None, None, None, Shifted()))["pyramid"]
    torch.testing.assert_close(loss, torch.full((2,), 16 * 16 * 0.1), rtol=1e-4, atol=1e-3)


def test_diversity_is_a_mean_over_pairs():
    """Orthogonal codes cost nothing, equal or opposite ones 1; a threshold spares the rest."""
    eye = torch.eye(4)
    assert diversity(eye, 0.1).item() == 0
    assert diversity(torch.ones(5, 3), 0.5).item() == pytest.approx(1)
    assert diversity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]), 0.5).item() == pytest.approx(1)
    pair = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # cos = 1 / sqrt 2
    assert diversity(pair, 0.5).item() == pytest.approx(0.5)
    assert diversity(pair, 0.8).item() == 0
    assert diversity(torch.ones(1, 3), 0.5).item() == 0
    torch.manual_seed(0)
    z = torch.randn(2000, 3)
    assert diversity(z, 0.0).item() == pytest.approx(1 / 3, abs=0.01)  # E cos^2 = 1 / D at random directions
    assert diversity(z[:200], 0.0).item() == pytest.approx(1 / 3, abs=0.05)


def test_every_option_trains():
    options = SMALL | {"pyramid": 0.1, "diversity": 1.0, "noise_law": "uniform"}
    model = build("e2e_sinkhorn_ae", DataSpec((2, 9, 8), levels=4), **options)
    terms = model(Batch(torch.randint(4, (6, 2, 9, 8), dtype=torch.uint8)))
    assert set(terms) == {"distortion", "matching", "pyramid", "diversity"}
    model.objectives[0].total(terms).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent >= 1"),
        ({"noise": 0}, "noise, noise_width, noise_depth >= 1"),
        ({"pyramid": 1.0}, "pyramid needs images"),
        ({"diversity": -1.0}, "diversity >= 0"),
        ({"diversity": 1.0, "threshold": 2.0}, r"threshold in \[0, 1\]"),
        ({"blur": -1.0}, "blur > 0"),
        ({"noise_law": "cauchy"}, "Unknown noise_law of e2e_sinkhorn_ae 'cauchy'"),
        ({"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("e2e_sinkhorn_ae", DataSpec((5,)), **options)


def test_pyramid_deeper_than_the_image_is_refused():
    with pytest.raises(ValueError, match="side >= 32"):
        build("e2e_sinkhorn_ae", DataSpec((1, 8, 8), levels=4), pyramid=1.0, pyramid_levels=6)
