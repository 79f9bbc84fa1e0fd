from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import manifold, metrics
from sklearn.linear_model import LogisticRegression

from genrep.evaluation.clusters import clustering_accuracy, normalised_mutual_information, trustworthiness
from genrep.evaluation.disentanglement import dci, mutual_information_gap, separated_predictability
from genrep.evaluation.logistic import logistic
from genrep.evaluation.memorisation import authenticity, copying, mann_whitney, nearest
from genrep.evaluation.probe import probe


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_mann_whitney_is_scipys():
    a, b = normal(30, 1, 0)[:, 0].numpy(), np.round(normal(40, 1, 1)[:, 0].numpy(), 1)
    a = np.round(a, 1)  # with ties
    truth = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic", alternative="greater").pvalue
    assert stats.norm.cdf(mann_whitney(a, b)) == pytest.approx(truth, rel=1e-9)
    assert mann_whitney(np.ones(5), np.ones(6)) == 0.0


def test_nearest_leaves_the_row_itself_out():
    x = torch.tensor([[0.0], [1.0], [5.0]])
    assert nearest(x, x).row.tolist() == [1, 0, 1]
    assert nearest(x + 0.25, x).distance.tolist() == pytest.approx([0.25] * 3)


@pytest.mark.parametrize("cells", [1, 3])
def test_copies_are_found_and_fresh_samples_are_not_accused(cells):
    train, held = normal(400, 6, 0), normal(300, 6, 1)
    copies = train[:300] + 0.01 * normal(300, 6, 2)
    found = copying(train=train, held_out=held, generated=copies, cells=cells)
    assert found.estimate.value < -10 / cells**0.5
    assert found.p_value < 1e-6
    assert authenticity(train=train, held_out=held, generated=copies).p_value < 1e-6
    assert authenticity(train=train, held_out=held, generated=copies).estimate.value < 0.05
    far = copying(train=train, held_out=held, generated=3 * normal(300, 6, 3), cells=cells)
    assert far.p_value > 0.99


def test_p_values_are_calibrated():
    low = {"copying": 0, "cells": 0, "authenticity": 0}
    for s in range(200):
        how = {
            "train": normal(60, 3, 3 * s),
            "held_out": normal(50, 3, 3 * s + 1),
            "generated": normal(50, 3, 3 * s + 2),
        }
        low["copying"] += copying(**how).p_value < 0.1
        low["authenticity"] += authenticity(**how).p_value < 0.1
    assert 8 <= low["copying"] <= 33  # 20 expected; the binomial's 0.3 % tails
    assert low["authenticity"] <= 33  # an exact test of counts: at most its level


def test_partial_copying_is_found_in_its_cell():
    """One mode of two is copied, the other is far too wide: the pooled statistic misses what the cells see."""
    train = torch.cat([normal(300, 3, 0), normal(300, 3, 1) + 50])
    held = torch.cat([normal(200, 3, 2), normal(200, 3, 3) + 50])
    fake = torch.cat([train[:200] + 1e-3, 2.0 * normal(200, 3, 4) + 50])
    assert copying(train=train, held_out=held, generated=held.flip(0), cells=2).estimate.value == pytest.approx(
        0, abs=1e-9
    )
    assert copying(train=train, held_out=held, generated=fake[:200], cells=1).p_value < 1e-6
    with pytest.raises(ValueError, match="10 held-out rows"):
        copying(train=train, held_out=held[:5], generated=fake)


def blobs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    return normal(n, 5, seed + 1) + 4 * torch.nn.functional.one_hot(y, 5), y


@pytest.mark.parametrize("reader", ["linear", "neighbours"])
def test_probe_reaches_the_best_accuracy_and_chance_on_noise(reader):
    (x, y), (z, t) = blobs(300, 0), blobs(400, 10)
    found = probe(x, y, z, t, reader=reader)
    assert found.value > 0.97  # Bayes: 0.995
    assert found.standard_error == pytest.approx((found.value * (1 - found.value) / 400) ** 0.5)
    chance = probe(normal(300, 5, 20), y, normal(400, 5, 21), t, reader=reader)
    assert chance.value < 0.45


@pytest.mark.parametrize("reader", ["linear", "neighbours"])
def test_probe_of_real_targets(reader):
    x, z, w = normal(400, 3, 0), normal(300, 3, 1), torch.tensor([1.0, -2.0, 0.5]).double()
    noise = 0.5 * normal(300, 1, 2)[:, 0]
    found = probe(x, x @ w + 0.5 * normal(400, 1, 3)[:, 0], z, z @ w + noise, reader=reader)
    truth = 1 - 0.25 / (float(w.square().sum()) + 0.25)  # R^2 = 0.955
    assert found.value == pytest.approx(truth, abs=0.02 if reader == "linear" else 0.2)
    assert 0 < found.standard_error < 0.03


@pytest.mark.parametrize(("n", "d"), [(200, 12), (60, 90)])
def test_logistic_regression_is_scikit_learns(n, d):
    """Wide and redundant features: the same minimum, though not on the same path; labels need not start at zero."""
    x = (normal(n, 6, 0) @ normal(6, d, 1) + 0.3 * normal(n, d, 2)).numpy()
    x[:, 3] = 2.0
    y = 2 + (x[:, 0] > 0) + (x[:, 1] + 0.5 * normal(n, 1, 3)[:, 0].numpy() > 0.5)
    z = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    weaker = None
    for strength in (1e-3, 0.1, 3.0):
        truth = LogisticRegression(C=strength, max_iter=20_000, tol=1e-10).fit(z, y)
        found = weaker = logistic(x, y, strength, start=weaker)
        weight = (found.basis.vectors @ found.weight).T
        np.testing.assert_allclose(weight, truth.coef_, atol=2e-3 * np.abs(truth.coef_).max())
        assert (found.predict(x) == truth.predict(z)).mean() > 0.99


def test_probe_refuses_bad_targets():
    (x, y), (z, t) = blobs(60, 0), blobs(40, 10)
    with pytest.raises(ValueError, match="one kind of target"):
        probe(x, y, z, t.double())
    with pytest.raises(ValueError, match="60 train targets"):
        probe(x, y[:-1], z, t)
    with pytest.raises(ValueError, match="two classes"):
        probe(x, torch.zeros_like(y), z, t)


def test_trustworthiness_is_scikit_learns_over_blocks():
    x = normal(1100, 6, 0)
    for embedding in (x[:, :2], normal(1100, 2, 1)):
        truth = manifold.trustworthiness(x.numpy(), embedding.numpy(), n_neighbors=7)
        assert trustworthiness(x, embedding, k=7).value == pytest.approx(truth, rel=1e-9)
    assert trustworthiness(x, x.clone()).value == 1.0


def test_clusters_against_scikit_learn():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randint(4, (300,), generator=g), torch.randint(6, (300,), generator=g)
    b = torch.where(torch.rand(300, generator=g) < 0.6, a, b)
    truth = metrics.normalized_mutual_info_score(a.numpy(), b.numpy())
    assert normalised_mutual_information(a, b).value == pytest.approx(truth, rel=1e-9)
    perfect = normalised_mutual_information(a, (a + 1) % 4)
    assert (perfect.value, perfect.standard_error) == pytest.approx((1.0, 0.0))
    assert clustering_accuracy(a, (a + 1) % 4).value == 1.0
    assert clustering_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])).value == 0.75


def factors(n: int) -> torch.Tensor:
    return torch.randint(4, (n, 3), generator=torch.Generator().manual_seed(0))


def test_disentangled_codes_score_high_and_rotated_ones_low():
    f = factors(1500)
    codes = torch.cat([f.double() + 0.01 * normal(1500, 3, 1), 0.1 * normal(1500, 1, 2)], 1)
    rotation = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2
    mig, rotated = mutual_information_gap(codes, f), mutual_information_gap(codes @ rotation, f)
    assert mig.value > 0.95
    assert rotated.value < 0.3
    sap, rotated = separated_predictability(codes, f), separated_predictability(codes @ rotation, f)
    assert sap.value == pytest.approx(0.75, abs=0.06)  # certainty against a chance of one in four
    assert rotated.value < 0.3
    good, bad = dci(codes, f, groups=2), dci(codes @ rotation, f, groups=2)
    assert min(good.disentanglement.value, good.completeness.value, good.informativeness.value) > 0.95
    assert max(bad.disentanglement.value, bad.completeness.value) < 0.6


def test_a_factor_in_two_codes_has_no_gap_and_is_incomplete():
    f = factors(1000)
    twice = torch.cat([f.double(), f.double()], 1) + 0.01 * normal(1000, 6, 1)
    assert mutual_information_gap(twice, f).value == pytest.approx(0, abs=0.02)
    assert dci(twice, f, groups=2).disentanglement.value > 0.95


def test_constant_factors_are_refused():
    with pytest.raises(ValueError, match="factor 1 is constant"):
        mutual_information_gap(normal(100, 3, 0), torch.tensor([[0, 0], [1, 0]]).repeat(50, 1))


def test_dci_of_codes_that_say_nothing_is_zero_not_nan():
    factors = torch.randint(0, 3, (120, 2), generator=torch.Generator().manual_seed(0))
    found = dci(torch.ones(120, 3), factors, seed=0)
    assert (found.disentanglement.value, found.completeness.value) == (0.0, 0.0)
    assert found.disentanglement.standard_error == 0.0
