"""Two players: the critic's optimum in closed form, gradients that stay with their player, samples that converge."""

import math

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, DataSpec, Inference, Model, Unsupported
from genrep.distributions.heads import PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import build
from genrep.nets.mlp import MLP
from genrep.objectives.adversarial import Adversarial, Critic, WassersteinGP, gradient_penalty
from genrep.storage import restore, state

LOSSES = ["non_saturating", "hinge", "wasserstein_gp"]


class Affine(nn.Module):
    """a z + b."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([a])), nn.Parameter(torch.tensor([b]))

    def forward(self, z, c=None):
        return self.a * z + self.b


def line(loss, a, b, penalty=10.0):
    """Samples from N(b, a^2) against a smooth critic: gradient penalties of piecewise linear ones are biased."""
    critic = Critic(MLP((1,), [64, 64], (1,)))
    objective = WassersteinGP(critic, penalty) if loss == "wasserstein_gp" else Adversarial(critic, loss)
    return Model(DataSpec((1,)), LatentVariable(StandardNormal(1), PointHead(Affine(a, b))), Inference(), objective)


def optimum(loss, shift, penalty):
    """The least that the critic's loss can be, data N(shift, 1) and samples N(0, 1), by sums over a fine grid.

    Wasserstein: the loss is -int D' f + penalty int (D' - 1)^2 r, with f the difference of the distribution functions
    and r the density of the points between the pairs, least where D' = 1 + f / (2 penalty r).
    """
    x = torch.linspace(-8, 10, 20_001, dtype=torch.float64)
    dx = x[1] - x[0]
    normal = lambda mean, variance: (-0.5 * (x - mean) ** 2 / variance).exp() / (2 * math.pi * variance) ** 0.5  # noqa: E731
    p, q = normal(shift, 1.0), normal(0.0, 1.0)
    if loss == "hinge":
        return 2 * torch.minimum(p, q).sum() * dx
    if loss == "wasserstein_gp":
        f = torch.special.ndtr(x) - torch.special.ndtr(x - shift)
        u = (torch.arange(1000) + 0.5) / 1000
        r = torch.stack([normal(shift * v, v**2 + (1 - v) ** 2) for v in u.tolist()]).mean(0)
        return -((f + f**2 / (4 * penalty * r)).sum() * dx)
    mean = (p + q) / 2
    return math.log(4) - (p * (p / mean).log() + q * (q / mean).log()).sum() * dx


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_best_critic_measures_the_divergence(loss, play):
    torch.manual_seed(0)
    shift, penalty = 1.5, 0.5
    model = line(loss, 1.0, 0.0, penalty)
    play(model, lambda: Batch(shift + torch.randn(512, 1)), 600, lr=1e-2, average=0.99, players=["critic"])
    found = model.objectives[0].total(model(Batch(shift + torch.randn(100_000, 1)), 0, "critic")).item()
    assert found == pytest.approx(float(optimum(loss, shift, penalty)), rel=0.02)


@pytest.mark.parametrize("loss", [LOSSES[0], *[pytest.param(loss, marks=pytest.mark.slow) for loss in LOSSES[1:]]])
def test_samples_converge_to_the_data(loss, play):
    torch.manual_seed(0)
    model = line(loss, 1.0, 1.0, penalty=0.1)
    draw = lambda: Batch(2 + 0.5 * torch.randn(256, 1))  # noqa: E731
    play(model, draw, 2400, lr=3e-3, critic_lr=1e-2, betas=(0.5, 0.9), average=0.995)
    tolerance = 0.1 if loss == "wasserstein_gp" else 0.02  # its slopes do not fade, so it circles
    generator = model.generative.likelihood.net
    assert generator.b.item() == pytest.approx(2, abs=tolerance)
    assert generator.a.abs().item() == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_stay_with_their_player(loss, play):
    model = build("dcgan", DataSpec((1, 8, 8), levels=17, classes=3), loss=loss, width=4, conditional=True).train()
    batch = Batch(torch.randint(17, (6, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 2, -1, 0, 1]))
    objective, seen = model.objectives[0], {}
    for player in ("critic", "model"):
        model.zero_grad()
        play.freeze(model, player)
        terms = model(batch, 0, player)
        objective.total(terms).backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert reached == set(model.learnable(0, player))
        seen[player] = set(terms)
    assert not seen["critic"] & seen["model"]
    assert seen["critic"] | seen["model"] == set(objective.terms)
    assert not set(model.learnable(0, "critic")) & set(model.learnable(0, "model"))


def test_gradient_penalty_is_its_finite_difference():
    """Its value from central differences of the critic, its gradient from central differences of the value."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    critic = lambda x, y: net(x).flatten()  # noqa: E731
    real, fake = torch.randn(2, 5, 3, dtype=torch.float64)

    def penalty():
        torch.manual_seed(1)
        return gradient_penalty(critic, real, fake, None)

    torch.manual_seed(1)
    x = torch.lerp(fake, real, torch.rand(5, 1, dtype=torch.float64))
    steps = 1e-5 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        slope = torch.stack([(critic(x + h, None) - critic(x - h, None)) / 2e-5 for h in steps], 1)
    torch.testing.assert_close(penalty(), (slope.norm(dim=1) - 1) ** 2, atol=1e-8, rtol=1e-6)
    penalty().sum().backward()
    weight = net[0].weight
    for i, j in [(0, 0), (3, 2), (7, 1)]:
        change = torch.zeros_like(weight)
        change[i, j] = 1e-5
        values = []
        for sign in (1, -1):
            weight.data += sign * change
            values.append(penalty().sum().item())
            weight.data -= sign * change
        assert weight.grad[i, j].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_labels_come_where_they_belong(play):
    """Three classes at three corners; an unknown label trains the same network and is accepted."""
    torch.manual_seed(0)
    corners = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
    model = build("dcgan", DataSpec((2,), classes=3), latent=2, width=64, conditional=True)

    def draw():
        y = torch.randint(3, (128,))
        return Batch(corners[y] + 0.3 * torch.randn(128, 2), y)

    play(model, draw, 1000, betas=(0.5, 0.999), average=0.99)
    y = torch.arange(3).repeat_interleave(500)
    x = model.sample(1500, condition=y, seed=0)
    torch.testing.assert_close(x.view(3, 500, 2).mean(1), corners, atol=0.2, rtol=0)
    assert (torch.cdist(x, corners).argmin(1) == y).float().mean() > 0.97
    assert model.sample(4, condition=-1).isfinite().all()


def test_every_critic_layer_has_slope_one_and_survives_saving():
    data = DataSpec((3, 12, 10), levels=256)
    model, other = (build("dcgan", data, width=4) for _ in range(2))
    model.train()
    batch = Batch(torch.randint(256, (4, *data.shape), dtype=torch.uint8))
    for _ in range(30):  # power iterations happen in train mode
        model(batch, 0, "critic")
    model.eval(), other.eval()
    layers = [m for m in model.objectives[0].critic.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) > 2
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    restore(other, {name: t.clone() for name, t in state(model).items()})
    x = torch.randn(2, *data.shape)
    assert torch.equal(model.objectives[0].critic(x), other.objectives[0].critic(x))
    assert torch.equal(model.sample(2, seed=3), other.sample(2, seed=3))


@pytest.mark.parametrize(
    "data",
    [DataSpec((1, 8, 8), levels=2), DataSpec((3, 9, 14), levels=256), DataSpec((2, 33, 16)), DataSpec((5,), levels=7)],
)
def test_any_shape_and_each_example_for_itself(data):
    """Samples have the shape and range of the data, and one drawn alone equals one drawn in a batch."""
    model = build("dcgan", data, width=4).eval()
    x = model.sample(3, seed=0)
    assert x.shape == (3, *data.shape)
    assert x.is_floating_point() == (data.levels is None)
    if data.levels:
        assert int(x.max()) < data.levels
    z = torch.randn(3, 64)
    together = model.generative.likelihood(z).mean
    torch.testing.assert_close(model.generative.likelihood(z[:1]).mean, together[:1])


def test_there_is_no_likelihood_and_no_encoder():
    model = build("dcgan", DataSpec((1, 8, 8), levels=17))
    assert model.capabilities == {"sample", "decode"}
    with pytest.raises(Unsupported, match="cannot log_likelihood"):
        model.log_likelihood(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(Unsupported, match="cannot encode"):
        model.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent >= 1"),
        ({"loss": "wasserstein"}, "Unknown loss of dcgan 'wasserstein'"),
        ({"loss": "wasserstein_gp", "penalty": -1.0}, "penalty >= 0"),
        ({"network": "conv"}, "needs images"),
        ({"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("dcgan", DataSpec((5,)), **options)


def test_image_too_small_for_the_depth_is_refused():
    with pytest.raises(ValueError, match="halved 2 times at most"):
        build("dcgan", DataSpec((1, 8, 8)), depth=4)
