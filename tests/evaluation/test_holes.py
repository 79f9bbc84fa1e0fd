"""Holes that were planted are found and sized; none is found where codes follow the prior."""

import math

import pytest
import torch
from tests.models.test_vae import Linear

from genrep.contracts import DataSpec, Inference, Model
from genrep.data.arrays import from_arrays
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.evaluation.holes import extremes, find_holes, holes
from genrep.objectives.autoencoding import Autoencoding, Rate


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def planted(n, d, seed):
    """N(0, I) without |z_1| < 0.5: a hole of prior mass erf(0.5 / sqrt 2) = 0.383."""
    z = normal(3 * n, d, seed)
    return z[z[:, 0].abs() > 0.5][:n]


def test_a_planted_hole_is_found_and_sized():
    found = holes(prior=normal(2000, 2, 0), posterior=planted(2000, 2, 1))
    truth = math.erf(0.5 / math.sqrt(2))
    assert 0.8 * truth < found.mass.value <= truth + 3 * found.mass.standard_error  # its edges are blurred
    inside = normal(2000, 2, 0)[:, 0].abs() < 0.4
    assert found.log_ratio[inside].median() < math.log(0.1) < found.log_ratio[~inside].median()
    dense, empty = extremes(found.log_ratio, 16)
    assert not inside[dense].any()
    assert inside[empty].all()


@pytest.mark.parametrize("d", [2, 8])
def test_no_hole_where_the_codes_follow_the_prior(d):
    found = holes(prior=normal(2000, d, 0), posterior=normal(1500, d, 1))
    assert abs(found.mass.value) <= max(0.005, 3 * found.mass.standard_error)
    assert found.region.value < 0.02
    assert found.divergence.value < 3 * found.divergence.standard_error + 1e-3


def test_the_divergence_is_below_that_of_two_normals():
    """JS(N(0, 1), N(2, 1)) by quadrature; the classifier's bound comes close from below. Disjoint laws: log 2."""
    x = torch.linspace(-12, 14, 20001, dtype=torch.float64)
    a, b = (torch.distributions.Normal(m, 1.0).log_prob(x) for m in (0.0, 2.0))
    middle = torch.logaddexp(a, b) - math.log(2)
    truth = 0.5 * torch.trapezoid(a.exp() * (a - middle) + b.exp() * (b - middle), x).item()
    found = holes(prior=normal(2000, 1, 0), posterior=normal(2000, 1, 1) + 2).divergence
    assert truth - 0.03 < found.value < truth + 3 * found.standard_error
    apart = holes(prior=normal(500, 2, 0), posterior=normal(500, 2, 1) + 40)
    assert apart.mass.value == 1
    assert apart.divergence.value == pytest.approx(math.log(2), abs=0.02)


def linear_gaussian(spread):
    """A model whose aggregate posterior is N(0, spread^2 I): the exact posterior of p(x) = N(0, W W' + s^2 I) at 1."""
    w, s, zero = torch.eye(3)[:, :2] * 1.5, 0.6, torch.zeros(3)
    m = (w.T @ w).diagonal() + s**2
    posterior = Linear(spread * w.T / m[:, None], zero[:2], (spread * (s**2 / m).sqrt()).log())
    likelihood = Linear(w, zero, torch.full((3,), math.log(s)))
    model = Model(
        DataSpec((3,)), LatentVariable(StandardNormal(2), likelihood), Inference(latent=posterior), Autoencoding(Rate())
    )
    x = normal(30_000, 2, 3) @ w.T + s * normal(30_000, 3, 4)
    splits = from_arrays(x)
    model.data = splits.spec
    return model, splits


def test_of_a_model():
    """At the exact posterior the aggregate posterior is the prior (Tomczak & Welling, 2018, section 3): no hole."""
    model, splits = linear_gaussian(1.0)
    found, _ = find_holes(model, splits, n=2000)
    assert abs(found.mass.value) <= max(0.005, 3 * found.mass.standard_error)
    model, splits = linear_gaussian(0.3)  # codes N(0, 0.09 I): q / p < 1 / 10 where |z|^2 > 0.93, p = 0.63, q = 0.006
    found, _ = find_holes(model, splits, n=2000)
    edge = 2 * math.log(10 / 0.09) / (1 / 0.09 - 1)
    assert found.mass.value == pytest.approx(math.exp(-edge / 2) - math.exp(-edge / 0.18), abs=0.06)


def test_input_is_checked():
    z = normal(200, 2, 0)
    with pytest.raises(ValueError, match="at least 100 draws"):
        holes(prior=z[:50], posterior=z)
    with pytest.raises(ValueError, match="one width"):
        holes(prior=z[:, :1], posterior=z)
    with pytest.raises(ValueError, match=r"threshold in \(0, 1\)"):
        holes(prior=z, posterior=z, threshold=1.0)
    bad = z.clone()
    bad[3, 1] = math.nan
    with pytest.raises(ValueError, match="finite"):
        holes(prior=bad, posterior=z)
