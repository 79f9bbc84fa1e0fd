"""PixelCNN: masses that sum to one, causality with no blind spot, and caches that change nothing."""

import math

import pytest
import torch
from scipy.stats import chisquare

from genrep.contracts import Batch, DataSpec, evaluating
from genrep.distributions.autoregressive import Autoregressive, outputs_of
from genrep.distributions.domains import Levels
from genrep.models import build
from genrep.nets.chain import Pixelwise
from genrep.nets.masked import GatedNetwork, PlainNetwork

NETWORKS = {"gated": GatedNetwork, "plain": PlainNetwork}
SMALL = DataSpec((2, 8, 9), levels=5, classes=3)


def loud(module, scale=1.0):
    """Weights far from their start, so that every connection matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=scale / math.sqrt(max(1, p[0].numel()) if p.ndim > 1 else 1))
    return module


def part(shape, levels, variant="gated", output="categorical", condition=0, **options):
    data = DataSpec(shape, levels=levels, classes=condition)
    net = NETWORKS[variant](shape[0], 8, options.pop("depth", 3), 3, condition)
    chain = Pixelwise(shape, net, 8, outputs_of(data, output, 3))
    return loud(Autoregressive(data, chain, output, condition).double(), 2.0)


def all_images(shape, levels):
    grid = torch.cartesian_prod(*[torch.arange(levels)] * math.prod(shape)).reshape(-1, *shape)
    return Levels(levels).inward(grid).double()


@pytest.mark.parametrize("variant", NETWORKS)
@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 3), ((2, 1, 3), 3), ((3, 2, 1), 3)])
@pytest.mark.parametrize("condition", [0, 4])
def test_masses_sum_to_one(variant, output, shape, levels, condition):
    p = part(shape, levels, variant, output, condition)
    x = all_images(shape, levels)
    y = torch.arange(len(x)) % 1 + 2 if condition else None
    with torch.no_grad():
        log_prob = p(y=y).log_prob(x)
    assert log_prob.std() > 0.5  # not the uniform distribution
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-10)


def order(shape):
    """Position of every value of an image (C, H, W) in the chain."""
    c, h, w = shape
    return torch.arange(c * h * w).reshape(h, w, c).permute(2, 0, 1)


@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize("shape", [(1, 6, 7), (3, 4, 5)])
def test_each_value_sees_all_earlier_ones_and_no_other(output, shape):
    """By gradient: the parameters of value i depend on value j exactly where j < i, the corners included."""
    p, place = part(shape, 4, output=output, depth=7), order(shape).flatten()
    x = torch.rand(1, *shape, dtype=torch.float64).mul(2).sub(1).requires_grad_()
    out = p.chain(x).flatten(1, 3)[0].square().sum(-1)
    sees = torch.stack([torch.autograd.grad(o, x, retain_graph=True)[0].flatten() != 0 for o in out])
    assert torch.equal(sees, place[None, :] < place[:, None])


def test_plain_network_is_causal_and_has_a_blind_spot():
    shape = (2, 6, 7)
    p, place = part(shape, 4, "plain", depth=8), order(shape).flatten()
    x = torch.rand(1, *shape, dtype=torch.float64).requires_grad_()
    out = p.chain(x).flatten(1, 3)[0].square().sum(-1)
    sees = torch.stack([torch.autograd.grad(o, x, retain_graph=True)[0].flatten() != 0 for o in out])
    allowed = place[None, :] < place[:, None]
    assert not (sees & ~allowed).any()
    assert (allowed & ~sees).any()  # right of the pixel, above it


@pytest.mark.parametrize("variant", NETWORKS)
@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize("conditional", [False, True])
def test_cached_samples_equal_the_network_run_once_per_pixel(variant, output, conditional):
    model = build("pixel_cnn", SMALL, variant=variant, output=output, width=16, depth=4, conditional=conditional)
    loud(model.double())
    condition = torch.tensor([0, 1, 2, 2, -1]) if conditional else None
    draw = [model.sample(5, condition=condition, seed=3, cache=cache) for cache in (True, False)]
    assert torch.equal(*draw)
    assert len(draw[0].unique()) == 5  # all levels are drawn
    other = model.sample(5, condition=condition, seed=4)
    assert not torch.equal(draw[0], other)


@pytest.mark.parametrize("variant", NETWORKS)
@pytest.mark.parametrize("kernel", [3, 5])
def test_cached_features_agree_in_float32(variant, kernel):
    torch.manual_seed(0)
    net = loud(NETWORKS[variant](3, 16, 5, kernel, 4))
    x, c = torch.rand(2, 3, 11, 9) * 2 - 1, torch.randn(2, 4)
    with torch.no_grad():
        whole, step = net(x, c), net.walk(2, 11, 9, c)
        before = torch.cat([torch.zeros(2, 3, 1), x.flatten(2)[:, :, :-1]], 2)
        found = torch.stack([step(before[:, :, k]) for k in range(99)], 2)
    torch.testing.assert_close(found, whole.flatten(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("output", ["categorical", "mixture"])
@pytest.mark.parametrize("condition", [0, 3])
def test_samples_follow_the_density(output, condition):
    """Chi-square over all 3^4 images, with a condition for each of its values."""
    shape, n = (2, 1, 2), 20_000
    p, x = part(shape, 3, output=output, condition=condition), all_images((2, 1, 2), 3)
    torch.manual_seed(1)
    for label in range(max(1, condition)):
        y = torch.full((n,), label) if condition else None
        with torch.no_grad():
            draws = p(y=y).sample() if condition else p().sample((n,))
            expected = p(y=None if y is None else y[: len(x)]).log_prob(x).exp() * n
        digits = (draws.flatten(1) + 1).long() @ torch.tensor([27, 9, 3, 1])
        found = digits.bincount(minlength=81).double()
        rare = expected < 5
        pool = lambda v: torch.cat([v[~rare], v[rare].sum()[None]]).numpy()  # noqa: E731, B023
        assert chisquare(pool(found), pool(expected) * n / expected.sum().item()).pvalue > 1e-3


def test_condition_matters_and_is_per_image():
    p = part((1, 3, 3), 4, condition=3)
    x = all_images((1, 1, 1), 4)[:2].expand(2, 1, 3, 3)
    both = p(y=torch.tensor([0, 2])).log_prob(x)
    alone = [p(y=torch.tensor([k])).log_prob(x[i : i + 1]) for i, k in enumerate((0, 2))]
    torch.testing.assert_close(both, torch.cat(alone))
    assert not torch.allclose(both[0], p(y=torch.tensor([1])).log_prob(x[:1]))
    assert p(y=torch.tensor([0, 2])).sample((3,)).shape == (3, 2, 1, 3, 3)


def test_half_precision_keeps_log_probabilities_finite_and_in_float32():
    for output in ("categorical", "mixture"):
        model = build("pixel_cnn", DataSpec((1, 8, 8), levels=256), output=output, width=16, depth=3)
        loud(model, 20.0)
        batch = Batch(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8))
        with torch.autocast("cpu", torch.bfloat16):
            nll = model(batch)["nll"]
        assert nll.dtype == torch.float32
        assert nll.isfinite().all()
        nll.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_training_learns_the_data():
    """Fitted to the rows of a two-image data set, the model reaches their entropy, log 2 nats, and draws only them."""
    torch.manual_seed(0)
    model = build("pixel_cnn", DataSpec((1, 8, 8), levels=4), width=16, depth=3)
    x = torch.randint(0, 4, (2, 1, 8, 8), dtype=torch.uint8)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = model.objectives[0].total(model(Batch(x)))
        loss.backward()
        optimiser.step()
    assert loss.item() == pytest.approx(math.log(2), abs=0.3)
    with torch.no_grad(), evaluating(model):
        drawn = model.sample(20, seed=0)
    errors = (drawn[:, None] != x).flatten(2).float().mean(2)
    assert (errors.min(1).values < 0.05).float().mean() > 0.8
    assert len(errors.argmin(1).unique()) == 2


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (DataSpec((5,), levels=3), {}, "Expected images"),
        (DataSpec((1, 8, 8)), {}, "integer levels"),
        (DataSpec((1, 4, 8), levels=3), {}, "at least 8"),
        (DataSpec((1, 8, 8), levels=3), {"kernel": 4}, "odd kernel"),
        (DataSpec((1, 8, 8), levels=3), {"variant": "gates"}, "gated"),
        (DataSpec((1, 8, 8), levels=3), {"conditional": True}, "neither"),
        (DataSpec((1, 8, 8), levels=3), {"components": 0}, "components >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        build("pixel_cnn", data, **options)
