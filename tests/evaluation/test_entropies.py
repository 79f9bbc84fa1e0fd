"""The sum of three entropies is the bound at the optimum of a linear Gaussian VAE, and nowhere near it."""

import math

import pytest
import torch
from tests.models.test_vae import Linear

from genrep.contracts import Batch, DataSpec, Inference, Model, Unsupported
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.evaluation.entropies import three_entropies
from genrep.models import build
from genrep.objectives.autoencoding import Autoencoding, Rate

D, L = 4, 2


def data(n=2000):
    """n points in R^4 with sample mean 0 and sample covariance diag(5, 3, 0.5, 0.3), exactly, rotated."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, dtype=torch.float64, generator=generator)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov(correction=0))).T
    variances = torch.tensor([5.0, 3.0, 0.5, 0.3], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=generator)).Q
    return x * variances.sqrt() @ turn.T, variances, turn


def optimum(x, variances, turn, *, scale=1.0, spread=1.0):
    """Tipping & Bishop (1999), eqs. 7-8: W = U (S - s^2)^1/2 with s^2 the mean of the variances left over."""
    s2 = variances[L:].mean()
    w = turn[:, :L] * (variances[:L] - s2).sqrt() * scale
    m = (w.T @ w).diagonal() + s2
    zero = torch.zeros(D, dtype=torch.float64)
    likelihood = Linear(w, zero, torch.full((D,), 0.5 * math.log(s2) + math.log(spread), dtype=torch.float64))
    posterior = Linear(w.T / m[:, None], zero[:L], 0.5 * (s2 / m).log())
    return Model(
        DataSpec((D,)),
        LatentVariable(StandardNormal(L).double(), likelihood),
        Inference(latent=posterior),
        Autoencoding(Rate()),
    )


def test_at_the_closed_form_optimum_the_gap_is_zero_and_the_sum_is_the_likelihood():
    """log p(x) = -n/2 (D log 2 pi + log |C| + D) at the maximum (Tipping & Bishop, 1999, eq. 4 with C fitted)."""
    x, variances, turn = data()
    found = three_entropies(optimum(x, variances, turn), x, draws=8)
    s2 = variances[L:].mean()
    exact = -0.5 * (D * math.log(2 * math.pi) + variances[:L].log().sum() + (D - L) * s2.log() + D)
    assert found.total.value == pytest.approx(exact.item(), abs=1e-9)
    assert found.total.standard_error < 1e-9  # the same for every example: no integral is left
    assert abs(found.gap.value) < 0.02


@pytest.mark.parametrize("away", [{"scale": 1.3}, {"scale": 0.6}, {"spread": 1.3}, {"spread": 0.8}])
def test_away_from_it_the_gap_is_seen(away):
    x, variances, turn = data()
    found = three_entropies(optimum(x, variances, turn, **away), x, draws=8)
    assert abs(found.gap.value) > 4 * found.gap.standard_error


def test_training_closes_the_gap():
    x, variances, turn = data(500)
    model = optimum(x, variances, turn, scale=0.3, spread=2.0)
    before = abs(three_entropies(model, x).gap.value)
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    torch.manual_seed(0)
    for k in range(400):
        optimiser.param_groups[0]["lr"] = 2e-2 * (1 - k / 400)
        optimiser.zero_grad()
        model.objectives[0].total(model(Batch(x))).backward()
        optimiser.step()
    after = three_entropies(model, x, draws=16).gap
    assert before > 0.5
    assert abs(after.value) < 0.02 + 3 * after.standard_error


def test_other_models_are_refused():
    data = DataSpec((1, 8, 8), levels=4)
    x = torch.zeros(300, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(Unsupported, match="known for Gaussian laws, and this model has a Cells"):
        three_entropies(build("vae", data, width=8), x)
    with pytest.raises(Unsupported, match="lacks a prior"):
        three_entropies(build("autoencoder", data, width=8), x)
    with pytest.raises(ValueError, match="draws >= 1"):
        three_entropies(build("vae", data, width=8, likelihood="gaussian"), x, draws=0)
    assert math.isfinite(three_entropies(build("vae", data, width=8, likelihood="gaussian"), x).gap.value)
