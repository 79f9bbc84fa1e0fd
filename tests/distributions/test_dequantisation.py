"""Dequantisation on spaces so small that the exact mass is an integral away."""

import math

import pytest
import torch

from genrep.contracts import DataSpec
from genrep.distributions.dequantisation import UniformNoise, VariationalNoise
from genrep.models import build

LEVELS = 4


def model_of(dequantisation, draws=1, shape=(1,)):
    torch.manual_seed(0)
    options = {"couplings": 2, "width": 8, "dequantisation": dequantisation, "draws": draws}
    model = build("real_nvp", DataSpec(shape, levels=LEVELS), **options).eval()
    torch.manual_seed(1)
    with torch.no_grad():  # the same flow whatever the noise
        for name, p in sorted(model.named_parameters()):
            if "noise" not in name:
                p.add_(0.7 * torch.randn_like(p))
    return model


def exact_masses(model):
    """int over each cell of the density of levels + u, by midpoints."""
    part = model.generative
    flow, n = getattr(part, "flow", part), 4000
    u = (2 * torch.arange(n) + 1 - n) / (2 * n)
    masses = []
    for level in range(LEVELS):
        inside, slope = model.domain.placed((level + u)[:, None])
        masses.append((flow().log_prob(inside) + slope).exp().mean())
    return torch.stack(masses)


def test_bounds_are_ordered_and_tighten_to_the_exact_mass():
    """uniform <= importance with K draws <= exact, in the mean over many draws, and K = 256 is within 1e-2."""
    uniform, several = model_of("uniform"), model_of("uniform", draws=8)
    exact = exact_masses(uniform)
    assert exact.sum().item() == pytest.approx(1, abs=2e-3)  # what the squeeze leaves outside of the cells is lost
    torch.testing.assert_close(exact_masses(several), exact, atol=1e-4, rtol=1e-4)
    levels = torch.arange(LEVELS).repeat_interleave(2000)[:, None]
    mean = lambda found: found.value.view(LEVELS, -1).mean(1)  # noqa: E731
    torch.manual_seed(2)
    with torch.no_grad():
        one, eight = (mean(m.log_likelihood(levels)) for m in (uniform, several))
        many = mean(several.log_likelihood(levels[::20], method="importance", draws=256))
    assert (one < eight).all()
    assert (eight < exact.log() + 0.01).all()
    assert (exact.log() - one).max() > 0.05, "the flow is too flat for the bounds to differ"
    torch.testing.assert_close(many, exact.log(), atol=1e-2, rtol=0)


def test_kinds_are_declared():
    x = torch.zeros(2, 1, dtype=torch.long)
    for name, draws, kind, measure in (
        ("uniform", 1, "lower bound", "mass"),
        ("variational", 1, "lower bound", "mass"),
        ("variational", 4, "lower bound", "mass"),
        ("none", 1, "exact", "improper"),
    ):
        found = model_of(name, draws).log_likelihood(x)
        assert (found.kind, found.measure) == (kind, measure), name


@pytest.mark.parametrize("shape", [(2,), (2, 3, 3)])
def test_variational_noise_has_the_density_it_claims(shape):
    """It starts uniform; with other parameters int q du = 1 over (0, 1): E_q [1 / q] is the volume of its support."""
    torch.manual_seed(0)
    noise = VariationalNoise(shape, LEVELS, 8).double()
    level = torch.randint(LEVELS, (1, *shape)).double().expand(4000, *shape)
    u, log_q = noise(level)
    torch.testing.assert_close(log_q, torch.zeros_like(log_q), atol=1e-9, rtol=0)
    assert u.abs().max() < 0.5
    with torch.no_grad():
        for p in noise.parameters():
            p.add_(0.1 * torch.randn_like(p))
        u, log_q = noise(level)
    weight = (-log_q).exp()
    assert log_q.std() > 0.05
    assert weight.mean().item() == pytest.approx(1, abs=5 * weight.std().item() / math.sqrt(len(weight)))


def test_variational_noise_learns_a_tighter_bound():
    """The bound after training q alone, against uniform noise, on the same flow."""
    model = model_of("variational")
    flow_parameters = {id(p) for p in model.generative.flow.parameters()}
    mine = [p for p in model.parameters() if id(p) not in flow_parameters]
    x, optimiser = torch.arange(LEVELS).repeat(64)[:, None], torch.optim.Adam(mine, 2e-2)
    with torch.no_grad():
        before = torch.stack([model.log_likelihood(x).value for _ in range(20)]).mean()
    for _ in range(150):
        optimiser.zero_grad()
        (-model.log_likelihood(x).value.mean()).backward()
        optimiser.step()
    with torch.no_grad():
        after = torch.stack([model.log_likelihood(x).value for _ in range(20)]).mean()
    best = exact_masses(model).log().mean()
    assert before < after - 0.02
    assert after < best + 0.01


def test_uniform_noise_stays_in_its_cell():
    torch.manual_seed(0)
    u, log_q = UniformNoise()(torch.zeros(1000, 3))
    assert u.min() >= -0.5
    assert u.max() < 0.5
    assert not log_q.any()
