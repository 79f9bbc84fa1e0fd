"""Every layer of flows through the gate, and the gate through planted faults."""

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from torch import nn

import genrep.distributions.flows as package
from genrep.distributions.flows.autoregressive import Autoregressive, Inverted
from genrep.distributions.flows.batch_norm import BatchNorm
from genrep.distributions.flows.bijection import Bijection, Chain, Multiscale
from genrep.distributions.flows.check import check_bijection
from genrep.distributions.flows.continuous import TIME, Continuous
from genrep.distributions.flows.coupling import Coupling, checkerboard, column_coupling, halves
from genrep.distributions.flows.elementwise import Affine, Shift
from genrep.distributions.flows.emerging import CausalConvolution, emerging
from genrep.distributions.flows.linear import Linear
from genrep.distributions.flows.mixture import LogisticMixture
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.patches import PatchAutoregressive, Patches
from genrep.distributions.flows.planar import Planar
from genrep.distributions.flows.radial import Radial
from genrep.distributions.flows.reshape import Flatten, Squeeze
from genrep.distributions.flows.residual import Residual
from genrep.distributions.flows.spline import CircularSpline, Spline
from genrep.distributions.flows.sylvester import Sylvester
from genrep.nets.coupling import ConvCoupling, DenseCoupling
from genrep.nets.lipschitz import LipschitzConv, LipschitzDense
from genrep.nets.masked_dense import MaskedDense
from genrep.nets.patch_transformer import PatchTransformer


def wake(layer):
    """Parameters of the size that training reaches: networks that start at zero would hide every fault."""
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return layer


def dense(element, shape=(5,), condition=0, k=0):
    keep = halves(shape[0], k)
    return Coupling(keep, DenseCoupling(shape, element.size, 16, 1, condition), element)


def conv(element, shape, keep, condition=0):
    return Coupling(keep, ConvCoupling(shape[0], element.size, 8, 1, condition), element)


def masked(element, d, condition=0, *, reverse=False):
    return Autoregressive(MaskedDense(d, element.size, 16, 1, condition, reverse=reverse), element)


def started(layer, *shape):
    layer.train()(3 + 2 * torch.randn(50, *shape))
    return layer


SOLVED = 1e-6  # the tolerance of equations solved by steps

LAYERS = {  # name: (constructor, shape, condition)
    "chain": (lambda: Chain(dense(Affine()), dense(Affine(), k=1), ActNorm(5)), (5,), 0),
    "multiscale": (
        lambda: Multiscale(
            (1, 4, 4),
            Chain(Squeeze(), conv(Affine(), (4, 2, 2), halves(4, 0).view(-1, 1, 1))),
            Chain(Squeeze(), ActNorm(8, 1, 1)),
        ),
        (1, 4, 4),
        0,
    ),
    "squeeze": (Squeeze, (2, 4, 6), 0),
    "flatten": (lambda: Flatten((2, 3)), (2, 3), 0),
    "coupling": (lambda: dense(Affine()), (5,), 0),
    "coupling, conditional": (lambda: dense(Affine(), condition=3, k=1), (5,), 3),
    "coupling, one column": (lambda: dense(Affine(), (1,), 2), (1,), 2),
    "coupling, channels": (lambda: conv(Affine(), (4, 3, 2), halves(4, 2).view(-1, 1, 1), 2), (4, 3, 2), 2),
    "coupling, checkerboard": (lambda: conv(Affine(), (2, 3, 3), checkerboard(3, 3, 1)), (2, 3, 3), 0),
    "column coupling": (lambda: column_coupling(5, 2, Affine(), 16, 1, 0), (5,), 0),
    "column coupling, conditional": (lambda: column_coupling(4, 1, Spline(), 16, 1, 3), (4,), 3),
    "column coupling of angles": (lambda: column_coupling(3, 0, CircularSpline(), 16, 1, 0, angles=True), (3,), 0),
    "additive coupling": (lambda: dense(Shift()), (5,), 0),
    "spline coupling": (lambda: dense(Spline(), condition=2), (5,), 2),
    "spline coupling, image": (lambda: conv(Spline(4, 3.0), (2, 3, 3), checkerboard(3, 3, 0)), (2, 3, 3), 0),
    "linear, lu": (lambda: Linear(6, "lu"), (6,), 0),
    "linear, plain": (lambda: Linear(4, "plain"), (4,), 0),
    "1 x 1 convolution, lu": (lambda: Linear(4, "lu"), (4, 3, 2), 0),
    "1 x 1 convolution, plain": (lambda: Linear(3, "plain"), (3, 2, 2), 0),
    "autoregressive": (lambda: masked(Affine(), 6), (6,), 0),
    "autoregressive, conditional": (lambda: masked(Affine(), 4, 2, reverse=True), (4,), 2),
    "autoregressive, one column": (lambda: masked(Affine(), 1, 2), (1,), 2),
    "autoregressive spline": (lambda: masked(Spline(), 5, reverse=True), (5,), 0),
    "inverse autoregressive": (lambda: Inverted(masked(Affine(), 5, 2)), (5,), 2),
    "inverse autoregressive spline": (lambda: Inverted(masked(Spline(), 4)), (4,), 0),
    "planar": (lambda: Planar(5), (5,), 0),
    "planar, conditional": (lambda: Planar(3, 2), (3,), 2),
    "radial": (lambda: Radial(5), (5,), 0),
    "radial, conditional": (lambda: Radial(3, 2), (3,), 2),
    "radial, one column": (lambda: Radial(1), (1,), 0),
    "sylvester": (lambda: Sylvester(5), (5,), 0),
    "sylvester, conditional": (lambda: Sylvester(4, 2, 3), (4,), 3),
    "circular spline coupling": (lambda: dense(CircularSpline(), condition=2), (5,), 2),
    "mixture coupling": (lambda: dense(LogisticMixture(), condition=2), (5,), 2),
    "mixture coupling, image": (
        lambda: conv(LogisticMixture(3), (2, 3, 3), checkerboard(3, 3, 0)),
        (2, 3, 3),
        0,
    ),
    "causal convolution": (lambda: CausalConvolution(2, 5), (2, 4, 3), 0),
    "emerging": (lambda: emerging(3), (3, 3, 3), 0),
    "residual": (lambda: Residual(LipschitzDense(4, 16, 1, 0.9), 4), (4,), 0),
    "residual, conditional": (lambda: Residual(LipschitzDense(3, 16, 0, 0.9, 2), 3), (3,), 2),
    "residual, image": (lambda: Residual(LipschitzConv(2, 8, 1, 0.9), 18), (2, 3, 3), 0),
    "patches": (lambda: Patches((2, 4, 6), 2), (2, 4, 6), 0),
    "patches of vectors": (lambda: Patches((3,), 1), (3,), 0),
    "patch autoregressive": (
        lambda: PatchAutoregressive(PatchTransformer(3, 2, 2, 8, 2, 2), Affine()),
        (3, 2),
        0,
    ),
    "patch autoregressive, conditional": (
        lambda: PatchAutoregressive(PatchTransformer(4, 1, 2, 8, 1, 1, 2), Affine(), reverse=True),
        (4, 1),
        2,
    ),
    "continuous": (lambda: Continuous(LipschitzDense(2, 8, 0, 6.0, TIME), 2, SOLVED), (2,), 0),
    "continuous, conditional": (
        lambda: Continuous(LipschitzDense(1, 8, 0, 6.0, TIME + 2), 1, SOLVED, "stored"),
        (1,),
        2,
    ),
    "batch norm": (lambda: started(BatchNorm(4), 4), (4,), 0),
    "batch norm, channels": (lambda: started(BatchNorm(2, 1, 1), 2, 3, 3), (2, 3, 3), 0),
    "actnorm": (lambda: started(ActNorm(4), 4), (4,), 0),
    "actnorm, channels": (lambda: started(ActNorm(2, 1, 1), 2, 3, 3), (2, 3, 3), 0),
}


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] * ("continuous" in k)) for k in LAYERS])
def test_layer_passes_the_gate(name):
    torch.manual_seed(0)
    make, shape, condition = LAYERS[name]
    edges = (0.0,) if "continuous" in name else (0.0, 3.0, -3.0, 5.0, -5.0, 20.0)
    batch, solved = (2, 100 * SOLVED) if "continuous" in name else (16, 0.0)
    check_bijection(wake(make()), shape, condition=condition, edges=edges, batch=batch, solved=solved)


def test_no_layer_is_left_out():
    found = set()
    for module in pkgutil.iter_modules(package.__path__):
        for _, kind in inspect.getmembers(import_module(f"{package.__name__}.{module.name}"), inspect.isclass):
            if issubclass(kind, Bijection) and not inspect.isabstract(kind):
                found.add(kind)
    tested = {type(module) for make, _, _ in LAYERS.values() for module in make().modules()}
    assert not found - tested


class Broken(Bijection):
    """z = exp(s) x + t sin(x_0) with one fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.s = fault, nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def forward(self, x, c=None):
        s = self.s.exp() if self.fault == "overflow" else torch.tanh(self.s)
        z = x * s.to(x.dtype).exp()
        log_det = s.to(x.dtype).sum().expand(len(x))
        if self.fault == "dropped":
            log_det = log_det * 0
        if self.fault == "sign":
            log_det = -log_det
        if self.fault == "batch":
            z = z - x.mean(0)
        if self.fault == "detached":
            z = z.detach() + x - x.detach()
        if self.fault == "gradient":
            z = z + (x - x).abs().sqrt()
        if self.fault == "bfloat16":
            z = z.bfloat16().to(x.dtype) if x.dtype == torch.float32 else z
        return z, log_det

    def inverse(self, z, c=None):
        s = torch.tanh(self.s).to(z.dtype)
        x = (z + 1e-3 if self.fault == "inverse" else z) * (-s).exp()
        return x, (s if self.fault == "inverse sign" else -s).sum().expand(len(z))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dropped", "log-determinant against autograd"),
        ("sign", "log-determinant against autograd"),
        ("overflow", "not finite in float64"),
        ("batch", "mapped differently"),
        ("detached", "finite differences"),
        ("gradient", "gradients of the map"),
        ("bfloat16", "float32 against float64"),
        ("inverse", "round trip"),
        ("inverse sign", "log-determinant of the inverse"),
    ],
)
def test_gate_finds_the_fault(fault, message):
    check_bijection(Broken(""), (3,))
    with pytest.raises(ValueError, match=message):
        check_bijection(Broken(fault), (3,))


def test_actnorm_starts_from_the_first_batch_only():
    torch.manual_seed(0)
    layer, x = ActNorm(3, 1, 1), 5 + 4 * torch.randn(64, 3, 4, 4)
    torch.testing.assert_close(layer.eval()(x)[0], x)  # nothing is learnt from evaluation
    z, _ = layer.train()(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3))
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    layer(10 * x)
    torch.testing.assert_close(layer.state_dict(), state)
    resumed = ActNorm(3, 1, 1)
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed.train()(x)[0], z)
    torch.testing.assert_close(resumed.state_dict(), state)


def test_squeeze_is_a_checkerboard():
    z, _ = Squeeze()(torch.arange(4.0).view(1, 1, 2, 2))
    assert z.flatten().tolist() == [0, 3, 1, 2]
    with pytest.raises(ValueError, match="even H and W"):
        Squeeze()(torch.zeros(1, 1, 3, 4))


def test_couplings_of_a_group_reach_every_value():
    for n in (2, 3, 5, 8, 43):
        kept = torch.stack([halves(n, k) for k in range(2)])
        assert bool((kept.sum(0) == 1).all())
        pairs = torch.stack([halves(n, k) for k in range(2 * (n - 1).bit_length())])
        differs = pairs[:, :, None] != pairs[:, None, :]  # every value is at some time decided by every other
        assert bool((differs.any(0) | torch.eye(n, dtype=torch.bool)).all())
    board = checkerboard(3, 4, 0)
    assert bool((board ^ checkerboard(3, 4, 1)).all())
    assert board[0, :2, :2].int().tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("reverse", [False, True])
def test_masked_network_reads_only_what_comes_before(reverse):
    torch.manual_seed(0)
    net = wake(MaskedDense(6, 2, 24, 2, reverse=reverse)).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], torch.randn(6, dtype=torch.float64))
    reads = (jacobian.abs().sum(0) > 0).int()
    expected = torch.ones(6, 6, dtype=torch.int).tril(-1)
    assert torch.equal(reads, expected.T if reverse else expected)


def test_spline_is_increasing_and_the_identity_outside_its_box():
    torch.manual_seed(0)
    spline, x = Spline(5, 2.0), torch.linspace(-3, 3, 4001, dtype=torch.float64)[:, None]
    z, log_slope = spline(x, (5 * torch.randn(1, spline.size, 1, dtype=torch.float64)).expand(len(x), -1, -1))
    assert bool((z.diff(dim=0) > 0).all())
    outside = x.abs() >= 2
    torch.testing.assert_close(z[outside], x[outside], atol=0, rtol=0)
    assert bool((log_slope[outside] == 0).all())
    start, _ = spline(x, torch.zeros(len(x), spline.size, 1, dtype=torch.float64))
    torch.testing.assert_close(start, x, atol=1e-14, rtol=0)


def test_a_singular_matrix_is_named():
    layer = Linear(3, "plain").eval()
    with torch.no_grad():
        layer.weight[1] = 0
    with pytest.raises(ValueError, match="singular"):
        layer(torch.randn(2, 3))
