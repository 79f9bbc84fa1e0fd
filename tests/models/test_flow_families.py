"""Densities of the flows with iterative parts or bases of their own, their samples, and dependent rows."""

import functools
import math

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.distributions.flows.residual import Residual
from genrep.models import build
from genrep.nets.lipschitz import LipschitzConv, LipschitzDense, convolution_bound, spectral_bound
from genrep.objectives.dependent import Dependent, matrix_normal

FLOWS = {
    "residual_flow": ("residual_flow", {"blocks": 3, "width": 16}),
    "ffjord": ("ffjord", {"blocks": 1, "width": 8, "depth": 0, "tolerance": 1e-6}),
    "tarflow": ("tarflow", {"layers": 2, "width": 8, "depth": 1, "heads": 2}),
    "tail_flow": ("tail_flow", {"couplings": 2, "width": 8, "tails": (3.0, 0.0)}),
    "tail_flow, learnt": ("tail_flow", {"couplings": 2, "width": 8}),
    "radial": ("planar", {"layers": 3, "layer": "radial"}),
    "sylvester": ("planar", {"layers": 3, "layer": "sylvester"}),
    "mixture coupling": ("real_nvp", {"couplings": 2, "width": 8, "coupling": "mixture"}),
    "batch norm": ("real_nvp", {"couplings": 2, "width": 8, "normalisation": "batch"}),
    "mixture base": ("maf", {"layers": 2, "width": 16, "base": "mixture"}),
    "student base": ("maf", {"layers": 2, "width": 16, "base": "student"}),
    "circular": ("circular_nsf", {"couplings": 2, "width": 8}),
}
every = pytest.mark.parametrize("name", FLOWS)


def awake(name, data, scale=0.2, **more):
    torch.manual_seed(0)
    recipe, options = FLOWS[name]
    model = build(recipe, data, **{**options, **more}).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p) * (1 if p.ndim < 2 else 2 / p[0].numel() ** 0.5))
    return model


def grid(name, n):
    """Points of the plane and the volume of each: finer towards zero, out to 1e3 for heavy tails; a circle's turn."""
    if name == "circular":
        axis = math.pi * (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
        widths = torch.full_like(axis, 2 * math.pi / n)
    else:
        u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
        reach = 7.6 if ("tail" in name or "student" in name) else 3.5
        axis, widths = torch.sinh(reach * u), reach * torch.cosh(reach * u) * 2 / n
    return torch.cartesian_prod(axis, axis), torch.outer(widths, widths).flatten()


@every
def test_density_integrates_to_one(name):
    model = awake(name, DataSpec((2,)))
    points, volumes = grid(name, 100 if name == "ffjord" else 240)
    with torch.no_grad():
        found = model.log_likelihood(points)
        assert found.kind == "exact"
        total = (found.value.exp() * volumes).sum()
    assert total.item() == pytest.approx(1, abs=5e-3)


@every
def test_samples_follow_the_density(name):
    """Chi-square over cells of the plane, whose probabilities are integrals of the density."""
    model = awake(name, DataSpec((2,)))
    points, volumes = grid(name, 100 if name == "ffjord" else 240)
    n, edges = 4000, torch.linspace(-2, 2, 5, dtype=torch.float64)
    index = lambda x: (torch.bucketize(x.T.contiguous(), edges) * torch.tensor([[6], [1]])).sum(0)  # noqa: E731
    with torch.no_grad():
        mass = model.log_likelihood(points).value.exp() * volumes
        x = model.domain.outward(model.generative().sample((n,)))
    # cells of the grid that an edge cuts are shared out by where their points are: a small error, allowed for
    expected = n * torch.zeros(36, dtype=torch.float64).index_add(0, index(points), mass)
    found = torch.bincount(index(x), minlength=36)
    big = expected > 20
    chi2 = ((found - expected).square() / (expected + (0.03 * expected).square()))[big].sum().item()
    degrees = int(big.sum()) - 1
    assert degrees >= 6
    assert chi2 < degrees + 4.5 * math.sqrt(2 * degrees)


@every
def test_round_trip_and_gradients_of_samples(name):
    model = awake(name, DataSpec((2,), condition=2), conditional=True)
    f, c = model.generative.bijection, torch.randn(3, 2, dtype=torch.float64)
    z = torch.randn(3, *f.shape_out((2,)), dtype=torch.float64, requires_grad=True)
    x, log_det = f.inverse(z, c)
    back, log_det_back = f(x, c)
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if name == "ffjord" else {"atol": 1e-8, "rtol": 1e-8}
    torch.testing.assert_close(back, z, **tolerance)
    torch.testing.assert_close(log_det_back, -log_det, **tolerance)
    (found,) = torch.autograd.grad(x.square().sum() + log_det.sum(), z)
    with torch.no_grad():
        h = torch.zeros_like(z).index_fill(1, torch.tensor([1]), 1e-5)
        values = []
        for s in (1, -1):
            x, log_det = f.inverse(z + s * h, c)
            values.append(x.square().sum() + log_det.sum())
    numeric = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(found[:, 1].sum(), numeric, atol=1e-2 if name == "ffjord" else 1e-5, rtol=1e-3)


def steep(net):
    """A decreasing g = -V'phi(V x), whose log-determinant is far from zero, unlike that of random weights."""
    with torch.no_grad():
        first, last = net.weights
        last.copy_(-first.transpose(0, 1) if first.ndim == 2 else -first.transpose(0, 1).flip(2, 3))
        net.biases[0].copy_(torch.randn_like(net.biases[0]))
    return net


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_russian_roulette_is_unbiased(kind):
    """Value and gradient, averaged over many draws of signs and of the number of terms, against the determinant."""
    torch.manual_seed(0)
    net, shape = (LipschitzDense(3, 8, 0, 0.9), (3,)) if kind == "dense" else (LipschitzConv(1, 4, 0, 0.9), (1, 2, 2))
    layer, x, n = Residual(steep(net), 4).double(), torch.randn(1, *shape, dtype=torch.float64), 300
    parameters = [*layer.net.weights, *layer.net.biases[:-1]]  # the last bias moves nothing but the image
    exact = layer.eval()(x)[1].sum()
    assert exact.abs() > 0.15
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters)])
    layer.train()
    values, slopes = [], []
    for _ in range(n):  # the rows of a batch share the number of terms
        many = layer(x.expand(40, *shape))[1].mean()
        values.append(many.detach())
        slopes.append(torch.cat([g.flatten() for g in torch.autograd.grad(many, parameters)]))
    for found, expected in ((torch.stack(values)[:, None], exact[None]), (torch.stack(slopes), slope)):
        error = found.std(0) / len(found) ** 0.5
        assert error.max() < 0.1 * expected.abs().max(), "the test must be able to see a bias"
        assert ((found.mean(0) - expected).abs() < 4.5 * error + 1e-9).all()


def test_spectral_bounds_are_bounds_and_tight():
    torch.manual_seed(0)
    for shape in ((5, 7), (64, 64), (1, 3)):
        matrix = torch.randn(shape, dtype=torch.float64)
        norm = torch.linalg.matrix_norm(matrix, 2)
        assert norm * (1 - 1e-9) <= spectral_bound(matrix) <= 1.02 * norm
    kernel = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    eye = torch.eye(2 * 5 * 4, dtype=torch.float64).view(-1, 2, 5, 4)
    whole = torch.nn.functional.conv2d(eye, kernel, padding=1).flatten(1)
    norm = torch.linalg.matrix_norm(whole, 2)
    assert norm <= convolution_bound(kernel, 5, 4) <= 1.3 * norm


def test_joint_likelihood_is_that_of_a_matrix_normal():
    from scipy.stats import matrix_normal as oracle

    torch.manual_seed(0)
    label = torch.tensor([0, 0, 1, -1, 1, -1])
    z = torch.randn(6, 3, dtype=torch.float64)
    rows = Dependent(0.6).covariance(label, z)
    assert rows[0, 1] == rows[2, 4] == 0.6
    assert rows[3, 5] == rows[0, 2] == 0
    expected = oracle(rowcov=rows.numpy(), colcov=torch.eye(3).numpy()).logpdf(z.numpy())
    assert matrix_normal(z, rows).item() == pytest.approx(expected, abs=1e-10)
    assert matrix_normal(z, torch.eye(6).double()).item() == pytest.approx(
        torch.distributions.Normal(0, 1).log_prob(z).sum().item(), abs=1e-10
    )


def test_dependent_rows_recover_the_margin_where_independence_is_biased():
    """Two families of 60 with correlation 0.8, mean 1, standard deviation 2: the maxima in closed form, 200 times."""
    torch.manual_seed(0)
    data, label = DataSpec((1,), classes=2), torch.arange(2).repeat_interleave(60)
    rows = Dependent(0.8).covariance(label, torch.zeros(1).double())
    factor, scales, one = torch.linalg.cholesky(rows), {0.8: [], 0.0: []}, torch.ones(120, 1).double()
    for _ in range(200):
        x = 1 + 2 * factor @ torch.randn(120, 1).double()
        for correlation, found in scales.items():
            inverse = torch.linalg.inv(Dependent(correlation).covariance(label, x))
            mean = (one.T @ inverse @ x) / (one.T @ inverse @ one)
            found.append(((x - mean).T @ inverse @ (x - mean) / 120).sqrt())
    aware, blind = (torch.stack(s) for s in scales.values())
    assert aware.mean().item() == pytest.approx(2, abs=0.03)
    assert blind.mean().item() < 1.6, "the spread between families is taken for the mean"
    assert blind.std() > 2 * aware.std()
    model = build("maf", data, layers=1, width=8, correlation=0.8).double()
    joint = model.objectives[0](model, Batch(x, label))["nll"]
    with torch.no_grad():
        z, log_det = model.generative.inward(x)
    torch.testing.assert_close(joint.detach(), -(matrix_normal(z, rows) + log_det.sum()) / 120)


def counted(kept, t):
    kept.append(t.numel())
    return t


def test_recomputed_and_stored_gradients_agree_and_memory_stays():
    torch.manual_seed(0)
    sizes = {}
    for gradient in ("stored", "recomputed"):
        torch.manual_seed(0)
        model = build("ffjord", DataSpec((2,)), blocks=1, width=32, tolerance=1e-6, gradient=gradient).double().train()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn_like(p))
        x, kept = torch.randn(32, 2).double(), []
        count = functools.partial(counted, kept)
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = model(Batch(x))["nll"].mean()
        sizes[gradient] = sum(kept), torch.autograd.grad(loss, list(model.learnable(0, "model").values()))
    for a, b in zip(sizes["stored"][1], sizes["recomputed"][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    assert sizes["recomputed"][0] < 0.3 * sizes["stored"][0]


def test_residual_flow_says_where_it_is_an_estimate():
    for shape, kind in (((8,), "exact"), ((80,), "estimate")):
        assert build("residual_flow", DataSpec(shape), blocks=1).log_likelihood(torch.randn(2, *shape)).kind == kind


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("emerging", (5,), {}, "for images"),
        ("emerging", (1, 8, 8), {"kernel": 4}, "odd kernel"),
        ("residual_flow", (5,), {"lipschitz": 1.0}, r"in \(0, 1\)"),
        ("ffjord", (5,), {"tolerance": 0.0}, "tolerance in"),
        ("tarflow", (1, 9, 9), {"patch": 2}, "divides the image's sides"),
        ("tarflow", (5,), {"patch": 2}, "patch is for images"),
        ("tarflow", (5,), {"heads": 3}, "heads=3 divides"),
        ("tail_flow", (5,), {"tails": (1.0, 2.0)}, "tails of 5 columns, got 2"),
        ("tail_flow", (2,), {"tails": (-1.0, 2.0)}, "degrees of freedom"),
        ("tail_flow", (1, 8, 8), {}, "for vectors"),
        ("circular_nsf", (1, 8, 8), {}, "for vectors"),
        ("maf", (5,), {"dequantisation": "variational"}, "for integer levels"),
        ("maf", (5,), {"draws": 3}, "for integer levels"),
        ("maf", (5,), {"correlation": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec(shape), **options)


def test_dependent_rows_need_labels():
    model = build("maf", DataSpec((2,)), correlation=0.5)
    with pytest.raises(ValueError, match="with labels"):
        model(Batch(torch.randn(4, 2)))
