"""RealNVP: exact change of variables, densities that integrate to one, samples that follow them."""

import math

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.models import build

SMALL = {"width": 8, "couplings": 4}


def awake(data, scale=0.3, seed=0, **options):
    """In float64 with random parameters: networks that start at zero would hide every fault."""
    torch.manual_seed(seed)
    model = build("real_nvp", data, **SMALL, **options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p))
    return model


def grid(d, end, n):
    """Midpoints of n^d cells, and their volume."""
    axis = end * (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    return torch.cartesian_prod(*[axis] * d).view(-1, d), (2 * end / n) ** d


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 8), {}),
        ((1, 8, 8), {"levels": 3}),
        ((3, 8, 8), {"levels": 2}),
        ((2, 8, 12), {}),
        ((1, 9, 9), {}),
        ((2, 8, 9), {}),
        ((1, 10, 10), {"levels": 0}),
        ((5,), {}),
        ((1,), {}),
    ],
)
def test_log_determinant_and_round_trip(shape, options):
    """|det| of the whole map against autograd's Jacobian, and x -> z -> x, z -> x -> z within float64 rounding."""
    model = awake(DataSpec(shape), **options)
    f = model.generative.bijection
    x = torch.randn(2, *shape, dtype=torch.float64)
    z, log_det = f(x)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: f(v[None])[0][0], x[i]).view(z.shape[1], -1)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i], atol=1e-8, rtol=1e-9)
    back, log_det_back = f.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-9, rtol=1e-9)
    other = torch.randn_like(z)
    torch.testing.assert_close(f(f.inverse(other)[0])[0], other, atol=1e-9, rtol=1e-9)
    single = model.float().generative.bijection
    torch.testing.assert_close(single.inverse(single(x.float())[0])[0], x.float(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("d", "end", "n"), [(1, 40, 4001), (2, 14, 501), (3, 9, 64)])
def test_density_integrates_to_one(d, end, n):
    model = awake(DataSpec((d,)), scale=0.2)
    points, cell = grid(d, end, n)
    with torch.no_grad():
        total = model.log_likelihood(points).value.exp().sum() * cell
    assert total.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("data", [DataSpec((2,), classes=3), DataSpec((2,), condition=2)])
def test_conditional_densities_differ_and_integrate_to_one(data):
    model = awake(data, scale=0.2, conditional=True)
    points, cell = grid(2, 14, 401)
    densities = []
    for y in range(2):
        condition = torch.full((len(points),), y) if data.classes else torch.tensor([1.0 - 3 * y, y]).double()
        with torch.no_grad():
            densities.append(model.log_likelihood(points, condition=condition).value.exp())
        assert (densities[-1].sum() * cell).item() == pytest.approx(1, abs=2e-3)
    assert (densities[0] - densities[1]).abs().sum() * cell > 0.2
    x = model.sample(6, condition=1 if data.classes else [0.0, 1.0], seed=0)
    assert x.shape == (6, 2)
    assert "condition" in model.capabilities


def test_samples_follow_the_density():
    """Chi-square over 64 cells of the plane, whose probabilities are integrals of the density."""
    model = awake(DataSpec((2,)), scale=0.3)
    points, cell = grid(2, 16, 960)
    n, edges = 20000, torch.linspace(-2, 2, 7, dtype=torch.float64)
    index = lambda x: (torch.bucketize(x.T.contiguous(), edges) * torch.tensor([[8], [1]])).sum(0)  # noqa: E731
    with torch.no_grad():
        density = model.log_likelihood(points).value.exp() * cell
        x = model.generative().sample((n,))
    expected = n * torch.zeros(64, dtype=torch.float64).index_add(0, index(points), density)
    found = torch.bincount(index(x), minlength=64)
    big = expected > 10
    chi2 = ((found - expected).square() / expected)[big].sum().item()
    degrees = int(big.sum()) - 1
    assert degrees > 20
    assert abs(chi2 - degrees) < 4.5 * math.sqrt(2 * degrees)


def test_dequantised_likelihood_is_below_a_mass():
    """E log p(x + u) <= log of the integral over the cell of x, and these masses sum to at most one."""
    data = DataSpec((2,), levels=3)
    model = awake(data, scale=0.1)
    images = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        bound = torch.stack([model.log_likelihood(images).value for _ in range(4000)])
    found = model.log_likelihood(images)
    assert (found.kind, found.measure) == ("lower bound", "mass")
    mass = bound.exp().mean(0)
    assert 0.02 < mass.sum().item() <= 1 + 4 * bound.exp().std(0).norm().item() / math.sqrt(4000)
    assert bool((bound.mean(0) <= mass.log() + 0.01).all())
    assert bool((bound.mean(0) < mass.log() - 0.01).any())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8), (6,)])
def test_reconstruction_is_exact(shape):
    model = awake(DataSpec(shape, levels=256)).float()
    x = torch.randint(256, (16, *shape), dtype=torch.uint8)
    x[0], x[1] = 0, 255
    assert torch.equal(model.reconstruct(x), x)
    assert model.encode(x).shape == (16, math.prod(shape))
    real = awake(DataSpec(shape, mean=(5.0,) * shape[0], std=(3.0,) * shape[0]))
    values = 5 + 3 * torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(real.reconstruct(values), values)


@pytest.mark.parametrize("data", [DataSpec((1, 8, 8), levels=17), DataSpec((3,), mean=(1.0,) * 3, std=(2.0,) * 3)])
def test_nll_is_minus_the_log_likelihood(data):
    model = awake(data).float()
    x = torch.randint(17, (5, *data.shape)) if data.levels else torch.randn(5, *data.shape)
    torch.manual_seed(3)
    term = model(Batch(x))["nll"]
    torch.manual_seed(3)
    torch.testing.assert_close(term, -model.log_likelihood(x).value)


def test_autocast_keeps_the_density_in_float32():
    model = awake(DataSpec((1, 8, 8), levels=17)).float().train()
    x = torch.randint(17, (8, 1, 8, 8))
    torch.manual_seed(0)
    expected = model(Batch(x))["nll"]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(Batch(x))["nll"]
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.02 * 64 * math.log(17)


@pytest.mark.parametrize("std", [5, 10, 20])
@pytest.mark.parametrize("shape", [(1, 8, 8), (6,)])
def test_extreme_parameters_stay_finite(std, shape):
    model = build("real_nvp", DataSpec(shape, levels=17))
    torch.manual_seed(std)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn_like(p))
    x = torch.randint(17, (4, *shape))
    loss = model(Batch(x))["nll"]
    assert bool(loss.isfinite().all())
    loss.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert model.sample(4, seed=0).shape == (4, *shape)


def test_every_parameter_is_trained():
    model = awake(DataSpec((2, 9, 8), levels=17, classes=3), conditional=True).float().train()
    y = torch.tensor([0, 1, 2, -1])
    model(Batch(torch.randint(17, (4, 2, 9, 8)), y))["nll"].sum().backward()
    assert [name for name, p in model.learnable(0, "model").items() if p.grad is None or not p.grad.any()] == []


def test_fits_what_it_can_represent():
    """A correlated Gaussian in standard units: held-out nats come within 0.03 of minus its entropy."""
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [1.6, 0.8]])
    model = build("real_nvp", DataSpec((2,), mean=(0.0, 0.0), std=(1.0, 1.8)), width=32, couplings=4)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(300):
        optimiser.zero_grad()
        model(Batch(torch.randn(256, 2) @ root.T))["nll"].mean().backward()
        optimiser.step()
    x = torch.randn(4000, 2) @ root.T
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=root).log_prob(x)
    with torch.no_grad():
        gap = exact - model.eval().log_likelihood(x).value
    assert abs(gap.mean().item()) < 0.03


def test_batch_and_layout_do_not_matter():
    model = awake(DataSpec((3, 8, 8), levels=256)).eval()
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    whole = model.generative().log_prob(x)
    for i in range(5):
        torch.testing.assert_close(model.generative().log_prob(x[i : i + 1]), whole[i : i + 1])
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(model.generative().log_prob(permuted), whole)
    assert model.generative().log_prob(x[:0]).shape == (0,)
    with pytest.raises(ValueError, match="Expected values of shape"):
        model.generative().log_prob(x[:, :2])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 28, 28), {"levels": 3}, "levels of 0 to 2, got 3"),
        ((1, 9, 12), {"levels": 1}, "levels of 0 to 0, got 1"),
        ((1, 8, 8), {"levels": -1}, "got -1"),
        ((5,), {"levels": 1}, "levels is for images"),
        ((5,), {"conditional": True}, "neither"),
        ((5,), {"width": -1}, "width >= 0"),
        ((5,), {"depth": -1}, "depth >= 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        build("real_nvp", DataSpec(shape), **options)
