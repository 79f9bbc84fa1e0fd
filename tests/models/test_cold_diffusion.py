"""Degradations against what they promise, and both samplers where the restoration is perfect."""

import pytest
import torch
from scipy.fft import dctn

from genrep.contracts import Batch, Conditional, DataSpec
from genrep.distributions.basic import Point
from genrep.distributions.cold import Blur, Cold, Masking, VectorMasking
from genrep.models import build

IMAGES = (2, 9, 12)


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def degradations():
    return {"masking": (Masking(), IMAGES), "vectors": (VectorMasking(), (7,)), "blur": (Blur(IMAGES), IMAGES)}


@pytest.mark.parametrize("name", ["masking", "vectors", "blur"])
def test_nothing_is_lost_at_the_start_and_all_at_the_end(name):
    degrade, shape = degradations()[name]
    x = torch.randn(5, *shape)
    seed = degrade.seed(x)
    torch.testing.assert_close(degrade(x, torch.zeros(5), seed), x)
    end = degrade(x, torch.ones(5), seed)
    if name == "blur":
        mean = x.mean((2, 3), keepdim=True)
        assert (end - mean).abs().max() < 0.2 * (x - mean).abs().max()
        torch.testing.assert_close(end.mean((2, 3), keepdim=True), mean)
    else:
        torch.testing.assert_close(end, degrade.end(seed))


def test_masking_replaces_a_growing_share_of_whole_pixels():
    x = torch.zeros(200, *IMAGES)
    degrade = Masking()
    seed, before = degrade.seed(x), torch.zeros(200, 9, 12, dtype=torch.bool)
    for t in (0.2, 0.7):
        changed = degrade(x, torch.full((200,), t), seed) != 0
        assert torch.equal(changed[:, 0], changed[:, 1])
        assert changed.double().mean().item() == pytest.approx(t, abs=0.02)
        assert (changed[:, 0] | ~before).all(), "what is gone stays gone"
        before = changed[:, 0]


def test_blur_is_heat():
    """Its coefficients are the cosine transform's; blurring twice adds the squares of the widths."""
    blur, x = Blur(IMAGES), torch.randn(3, *IMAGES)
    torch.testing.assert_close(blur.coefficients(x), torch.from_numpy(dctn(x.numpy(), axes=(2, 3), norm="ortho")))
    torch.testing.assert_close(blur.back(blur.coefficients(x)), x)
    constant = torch.ones(1, *IMAGES)
    torch.testing.assert_close(blur(constant, torch.full((1,), 0.8), constant), constant)


def test_the_end_of_blurring_is_a_gaussian_fitted_to_the_data():
    """At the moments of the data the loss has no slope, and the end has those moments."""
    blur = Blur((1, 4, 5))
    x = (torch.randn(300, 20) @ torch.randn(20, 20)).view(300, 1, 4, 5) + 0.5
    low = blur._low(x)
    mean, covariance = low.mean(0), low.T.cov(correction=0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
    std = 1 / whiten.diagonal()
    with torch.no_grad():
        blur.mean.copy_(mean)
        blur.log_std.copy_(std.log())
        blur.lower.copy_(whiten * std)
    blur.loss(x).mean().backward()
    for p in blur.parameters():
        assert p.grad.abs().max() < 1e-6
    with torch.no_grad():
        seeds = torch.cat([torch.zeros(1, 16), torch.eye(16)])
        end = blur.coefficients(blur.end(seeds))[..., :4, :4].flatten(1)
    torch.testing.assert_close(end[0], mean)
    torch.testing.assert_close((end[1:] - end[0]).T @ (end[1:] - end[0]), covariance)


class Knowing(Conditional):
    def __init__(self, x, error=0.0):
        super().__init__()
        self.x, self.error = x, error

    def forward(self, x, t, *, y=None):
        return Point(self.x + self.error * t.view(-1, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize("sampler", ["improved", "naive"])
@pytest.mark.parametrize("name", ["masking", "vectors", "blur"])
def test_perfect_restoration_comes_back(name, sampler):
    """From D(x, 1): x; with an error that vanishes as t does, so does the error of the sample."""
    degrade, shape = degradations()[name]
    x = torch.randn(4, *shape)
    seed = degrade.seed(x)
    start = degrade(x, torch.ones(4), seed)
    for error in (0.0, 0.5):
        cold = Cold(Knowing(x, error), degrade, shape, 50)
        back = cold.restore(start, seed, None, steps=50, sampler=sampler)
        torch.testing.assert_close(back, x, atol=1e-9 + 0.5 / 50, rtol=0)


def test_it_learns_and_refuses():
    torch.set_default_dtype(torch.float32)
    data = DataSpec((1, 8, 8), levels=17, classes=3)
    for degradation in ("masking", "blur"):
        model = build("cold_diffusion", data, degradation=degradation, width=8, conditional=True)
        batch = Batch(torch.randint(0, 17, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 3)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(4):
            optimiser.zero_grad()
            model.objectives[0].total(model(batch)).backward()
            optimiser.step()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
        x = model.sample(3, condition=1, seed=0, evaluations=4)
        assert torch.equal(x, model.sample(3, condition=1, seed=0, evaluations=4))
    for how, message in (({"sampler": "ddim"}, "no Gaussian noise"), ({"evaluations": 51}, "1 to 50")):
        with pytest.raises(ValueError, match=message):
            model.sample(1, condition=0, **how)
    with pytest.raises(ValueError, match="blur needs images"):
        build("cold_diffusion", DataSpec((4,)), degradation="blur")
