"""Every flow: exact change of variables, densities that integrate to one, samples that follow them."""

import math

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.distributions.flows.autoregressive import Autoregressive
from genrep.models import build

COUPLINGS, AUTOREGRESSIVE = {"width": 8, "couplings": 4}, {"width": 16, "layers": 2}
SMALL = {
    "real_nvp": COUPLINGS,
    "nice": COUPLINGS,
    "glow": COUPLINGS,
    "nsf": COUPLINGS | {"bins": 4},
    "maf": AUTOREGRESSIVE,
    "iaf": AUTOREGRESSIVE,
    "nsf_ar": AUTOREGRESSIVE | {"bins": 4},
    "planar": {"layers": 6},
}
every = pytest.mark.parametrize("name", SMALL)


def awake(name, data, scale=0.3, seed=0, **options):
    """In float64 with random parameters: networks that start at zero would hide every fault."""
    torch.manual_seed(seed)
    model = build(name, data, **{**SMALL[name], **options}).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p) * (1 if p.ndim < 2 else 2 / p[0].numel() ** 0.5))
    return model


def grid(d, end, n):
    """Midpoints of n^d cells, and their volume."""
    axis = end * (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    return torch.cartesian_prod(*[axis] * d).view(-1, d), (2 * end / n) ** d


IMAGES = [
    ("real_nvp", (1, 8, 8), {}),
    ("real_nvp", (1, 8, 8), {"levels": 3}),
    ("real_nvp", (3, 8, 8), {"levels": 2}),
    ("real_nvp", (2, 8, 12), {}),
    ("real_nvp", (1, 9, 9), {}),
    ("real_nvp", (2, 8, 9), {}),
    ("real_nvp", (1, 10, 10), {"levels": 0}),
    ("nice", (1, 8, 8), {}),
    ("glow", (1, 8, 8), {"levels": 2}),
    ("glow", (2, 9, 8), {"convolution": "plain"}),
    ("nsf", (1, 8, 8), {}),
    ("maf", (1, 8, 8), {}),
    ("planar", (1, 8, 8), {}),
    ("nsf_ar", (1, 8, 8), {"bins": 4}),
]


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [*IMAGES, *[(name, (5,), {}) for name in SMALL], *[(name, (1,), {}) for name in SMALL]],
)
def test_log_determinant_and_round_trip(name, shape, options):
    """|det| of the whole map against autograd's Jacobian, and x -> z -> x, z -> x -> z within float64 rounding."""
    model = awake(name, DataSpec(shape), scale=0.2, **options)
    f = model.generative.bijection
    x = torch.randn(2, *shape, dtype=torch.float64).requires_grad_()
    z, log_det = f(x)
    rows = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0].flatten(1) for k in range(z.shape[1])]
    expected = torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet
    torch.testing.assert_close(log_det, expected, atol=1e-8, rtol=1e-9)
    with torch.no_grad():
        back, log_det_back = f.inverse(z)
        torch.testing.assert_close(back, x.detach(), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(log_det_back, -log_det, atol=1e-8, rtol=1e-9)
        other = torch.randn_like(z)
        torch.testing.assert_close(f(f.inverse(other)[0])[0], other, atol=1e-8, rtol=1e-8)
        single = model.float().generative.bijection
        torch.testing.assert_close(single.inverse(single(x.float())[0])[0], x.detach().float(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("d", "end", "n"), [(1, 40, 4000), (2, 24, 450)])
@every
def test_density_integrates_to_one(name, d, end, n):
    model = awake(name, DataSpec((d,)), scale=0.2)
    points, cell = grid(d, end, n)
    with torch.no_grad():
        total = model.log_likelihood(points).value.exp().sum() * cell
    assert total.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", ["real_nvp", "maf", "nsf"])
def test_density_over_space_integrates_to_one(name):
    points, cell = grid(3, 8, 50)
    with torch.no_grad():
        total = awake(name, DataSpec((3,)), scale=0.1).log_likelihood(points).value.exp().sum() * cell
    assert total.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("data", [DataSpec((2,), classes=3), DataSpec((2,), condition=2)])
@every
def test_conditional_densities_differ_and_integrate_to_one(name, data):
    model = awake(name, data, scale=0.2, conditional=True)
    points, cell = grid(2, 20, 500)  # for some conditions mass lies far out
    densities = []
    for y in range(2):
        condition = torch.full((len(points),), y) if data.classes else torch.tensor([1.0 - 3 * y, y]).double()
        with torch.no_grad():
            densities.append(model.log_likelihood(points, condition=condition).value.exp())
        assert (densities[-1].sum() * cell).item() == pytest.approx(1, abs=2e-3)
    assert (densities[0] - densities[1]).abs().sum() * cell > 0.05
    x = model.sample(6, condition=1 if data.classes else [0.0, 1.0], seed=0)
    assert x.shape == (6, 2)
    assert "condition" in model.capabilities


@pytest.mark.slow
@every
def test_samples_follow_the_density(name):
    """Chi-square over 64 cells of the plane, whose probabilities are integrals of the density."""
    model = awake(name, DataSpec((2,)), scale=0.2)
    points, cell = grid(2, 24, 720)
    n, edges = 10000, torch.linspace(-2, 2, 7, dtype=torch.float64)
    index = lambda x: (torch.bucketize(x.T.contiguous(), edges) * torch.tensor([[8], [1]])).sum(0)  # noqa: E731
    with torch.no_grad():
        density = model.log_likelihood(points).value.exp() * cell
        x = model.generative().sample((n,))
    expected = n * torch.zeros(64, dtype=torch.float64).index_add(0, index(points), density)
    found = torch.bincount(index(x), minlength=64)
    big = expected > 10
    chi2 = ((found - expected).square() / expected)[big].sum().item()
    degrees = int(big.sum()) - 1
    assert degrees > 15
    assert abs(chi2 - degrees) < 4.5 * math.sqrt(2 * degrees)


def test_dequantised_likelihood_is_below_a_mass():
    """E log p(x + u) <= log of the integral over the cell of x, and these masses sum to at most one."""
    data = DataSpec((2,), levels=3)
    model = awake("real_nvp", data, scale=0.1).float()
    images = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        bound = model.log_likelihood(images.repeat(2000, 1)).value.reshape(2000, -1)
    found = model.log_likelihood(images)
    assert (found.kind, found.measure) == ("lower bound", "mass")
    mass = bound.exp().mean(0)
    assert 0.02 < mass.sum().item() <= 1 + 4 * bound.exp().std(0).norm().item() / math.sqrt(2000)
    assert bool((bound.mean(0) <= mass.log() + 0.01).all())
    assert bool((bound.mean(0) < mass.log() - 0.01).any())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8), (6,)])
@every
def test_reconstruction_is_exact(name, shape):
    model = awake(name, DataSpec(shape, levels=256), scale=0.1).float()
    x = torch.randint(256, (16, *shape), dtype=torch.uint8)
    x[0], x[1] = 0, 255
    assert torch.equal(model.reconstruct(x), x)
    assert model.encode(x).shape == (16, math.prod(shape))
    real = awake(name, DataSpec(shape, mean=(5.0,) * shape[0], std=(3.0,) * shape[0]), scale=0.05)  # well conditioned
    values = 5 + 3 * torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(real.reconstruct(values), values)


@pytest.mark.parametrize("data", [DataSpec((1, 8, 8), levels=17), DataSpec((3,), mean=(1.0,) * 3, std=(2.0,) * 3)])
@every
def test_nll_is_minus_the_log_likelihood(name, data):
    model = awake(name, data, scale=0.1).float()
    x = torch.randint(17, (5, *data.shape)) if data.levels else torch.randn(5, *data.shape)
    torch.manual_seed(3)
    term = model(Batch(x))["nll"]
    torch.manual_seed(3)
    torch.testing.assert_close(term, -model.log_likelihood(x).value)


@every
def test_autocast_keeps_the_density_in_float32(name):
    shape = (1, 8, 8)
    model = awake(name, DataSpec(shape, levels=17), scale=0.05).float().train()
    x = torch.randint(17, (8, *shape))
    torch.manual_seed(0)
    expected = model(Batch(x))["nll"]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(Batch(x))["nll"]
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.02 * math.prod(shape) * math.log(17)


@pytest.mark.parametrize("std", [5, 10, 20])
@pytest.mark.parametrize("shape", [(1, 8, 8), (6,)])
@every
def test_extreme_parameters_stay_finite(name, std, shape):
    torch.manual_seed(std)
    model = build(name, DataSpec(shape, levels=17), **SMALL[name])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn_like(p))
    x = torch.randint(17, (4, *shape))
    loss = model(Batch(x))["nll"]
    assert bool(loss.isfinite().all())
    loss.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert model.sample(4, seed=0).shape == (4, *shape)


@every
def test_every_parameter_is_trained(name):
    shape = (2, 8, 9)
    model = awake(name, DataSpec(shape, levels=17, classes=3), scale=0.1, conditional=True).float().train()
    y = torch.tensor([0, 1, 2, -1])
    model(Batch(torch.randint(17, (4, *shape)), y))["nll"].sum().backward()
    assert [name for name, p in model.learnable(0, "model").items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.slow
@every
def test_fits_what_it_can_represent(name):
    """A correlated Gaussian in standard units: held-out nats come within 0.05 of minus its entropy."""
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [1.6, 0.8]])
    model = build(name, DataSpec((2,), mean=(0.0, 0.0), std=(1.0, 1.8)), **SMALL[name])
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        model(Batch(torch.randn(128, 2) @ root.T))["nll"].mean().backward()
        optimiser.step()
    x = torch.randn(4000, 2) @ root.T
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=root).log_prob(x)
    with torch.no_grad():
        gap = exact - model.eval().log_likelihood(x).value
    assert abs(gap.mean().item()) < 0.05


@every
def test_batch_and_layout_do_not_matter(name):
    model = awake(name, DataSpec((3, 8, 8), levels=256), scale=0.1).eval()
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
    ("name", "shape", "options", "message"),
    [
        ("real_nvp", (1, 28, 28), {"levels": 3}, "levels of 0 to 2, got 3"),
        ("glow", (1, 9, 12), {"levels": 1}, "levels of 0 to 0, got 1"),
        ("nsf", (1, 8, 8), {"levels": -1}, "got -1"),
        ("nice", (5,), {"levels": 1}, "levels is for images"),
        ("real_nvp", (5,), {"conditional": True}, "neither"),
        ("real_nvp", (5,), {"width": -1}, "width >= 0"),
        ("real_nvp", (5,), {"depth": -1}, "depth >= 0"),
        ("maf", (5,), {"layers": 0}, "layers >= 1"),
        ("nsf", (5,), {"bins": 1}, "2 to 100 bins"),
        ("glow", (5,), {"convolution": "qr"}, "Unknown convolution"),
        ("planar", (5,), {"layers": 0}, "layers >= 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec(shape), **options)


@pytest.mark.parametrize("way", ["walk", "jacobi"])
@pytest.mark.parametrize("name", ["maf", "nsf_ar"])
def test_inverses_are_exact(name, way):
    """Against the definition, one value after the other, each with a whole pass; both directions of the columns."""
    model = awake(name, DataSpec((43,)), scale=0.05)
    layers = [m for m in model.generative.bijection.modules() if isinstance(m, Autoregressive)]
    z = torch.randn(50, 43, dtype=torch.float64)
    with torch.no_grad():
        for layer, order in zip(layers, (range(43), reversed(range(43))), strict=True):
            x = torch.zeros_like(z)
            for k in order:
                x[:, k] = layer.element.inverse(z, layer.net(x))[0][:, k]
            layer.way = way
            torch.testing.assert_close(layer.inverse(z)[0], x, atol=1e-10, rtol=1e-10)
            assert layer.passes == 43 if way == "walk" else 1 < layer.passes < 43
    assert model.generative.evaluations() >= layers[0].passes


@pytest.mark.parametrize("name", ["maf", "iaf", "nsf_ar", "planar", "glow", "nsf"])
def test_gradients_of_samples_are_those_of_finite_differences(name):
    model = awake(name, DataSpec((3,)), scale=0.2)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    parameter = max(model.parameters(), key=lambda p: p.numel())

    def f(point, change):
        with torch.no_grad():
            parameter.view(-1)[7 % parameter.numel()] += change
        x, log_det = model.generative.bijection.inverse(point)
        return x.square().sum() + log_det.sum()

    gradient_z, gradient_p = torch.autograd.grad(f(z, 0.0), [z, parameter])
    h = 1e-6
    up, down = f(z.detach(), h), f(z.detach(), -2 * h)
    f(z.detach(), h)
    found = gradient_p.view(-1)[7 % parameter.numel()]
    torch.testing.assert_close(found, ((up - down) / (2 * h)).detach(), atol=1e-6, rtol=1e-5)
    step = torch.zeros_like(z).index_fill(1, torch.tensor([1]), h)
    numeric = (f(z.detach() + step, 0.0) - f(z.detach() - step, 0.0)) / (2 * h)
    torch.testing.assert_close(gradient_z[:, 1].sum(), numeric.detach(), atol=1e-6, rtol=1e-5)


@every
def test_bad_calls_are_refused_and_empty_ones_are_not(name):
    model = awake(name, DataSpec((3,), condition=2), conditional=True)
    flow = model.generative
    y = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="condition of width 2"):
        flow(y=torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"Expected a condition of shape \(4, 2\)"):
        model.log_likelihood(torch.zeros(4, 3).double(), condition=torch.zeros(4, 5))
    with pytest.raises(ValueError, match="conditional: pass condition="):
        model.sample(4)
    assert flow(y=y[:0]).log_prob(torch.zeros(0, 3, dtype=torch.float64)).shape == (0,)
    assert flow.likelihood(torch.zeros(0, 3, dtype=torch.float64), y=y[:0]).mean.shape == (0, 3)
    assert flow(y=y).rsample((5,)).shape == (5, 4, 3)
    assert flow(y=y).log_prob(torch.zeros(5, 4, 3, dtype=torch.float64)).shape == (5, 4)
    crossed = torch.randn(3, 4, dtype=torch.float64).T
    torch.testing.assert_close(flow(y=y).log_prob(crossed), flow(y=y).log_prob(crossed.contiguous()))
