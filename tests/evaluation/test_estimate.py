from __future__ import annotations

import json
import math

import pytest
import torch

from genrep.evaluation.arrays import features, group_of, pair, square_distances
from genrep.evaluation.estimate import difference, estimate, jackknifed, null_check, proportion
from genrep.evaluation.frechet import frechet_distance
from genrep.evaluation.kernel import kernel_distance


def test_jackknife_of_a_mean_is_the_usual_error():
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = jackknifed(float(x.mean()), [float((x.sum() - v) / 49) for v in x], n=(50, 0))
    assert found.standard_error == pytest.approx(float(x.std()) / 50**0.5, rel=1e-12)
    assert found.interval[1] - found.value == pytest.approx(
        2.0095752371 * found.standard_error, rel=1e-9
    )  # t, 49 degrees


def test_difference_refuses_other_protocols_and_names_the_keys():
    a = estimate(2.0, 0.3, n=(5, 5), protocol={"features": "lenet:1", "model": "vae"})
    b = estimate(1.0, 0.4, n=(5, 5), protocol={"features": "lenet:1", "model": "gan"})
    found = difference(a, b)
    assert (found.value, found.standard_error) == pytest.approx((1.0, 0.5))
    assert found.protocol["model"] == ("vae", "gan")
    with pytest.raises(ValueError, match="'features', 'split'"):
        difference(a, estimate(1.0, 0.4, n=(5, 5), protocol={"features": "lenet:2", "split": "test"}))
    with pytest.raises(ValueError, match="'n'"):
        difference(a, estimate(1.0, 0.4, n=(5, 6), protocol={"features": "lenet:1"}))


def test_difference_is_paired_where_replicates_are():
    a = jackknifed(2.0, [1.9, 2.0, 2.1], n=(9, 9))
    b = jackknifed(1.0, [0.9, 1.0, 1.1], n=(9, 9))
    assert difference(a, b).standard_error == pytest.approx(0, abs=1e-12)
    assert a.standard_error > 0.1


def test_asdict_is_json_even_with_an_unknown_error():
    found = estimate(1.0, math.nan, n=(1, 2), protocol={"model": "vae"})
    again = json.loads(json.dumps(found.asdict(), allow_nan=False))
    assert again["standard_error"] is None
    assert again["n"] == {"real": 1, "generated": 2}


def test_null_check_passes_equal_halves_and_flags_the_plug_in():
    x = torch.randn(800, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert null_check(frechet_distance, x).passed
    assert null_check(kernel_distance, x).passed
    assert not null_check(lambda **how: estimate(0.5, 0.1, n=(1, 1)), x).passed


def test_bad_features_are_refused_by_name():
    x = torch.zeros(4, 3)
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match="generated, but row 2"):
        pair(torch.zeros(4, 3), x)
    with pytest.raises(ValueError, match=r"real \(4, 3\) and generated \(4, 2\)"):
        pair(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 rows"):
        features(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="flatten"):
        features(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="pass fewer groups"):
        group_of(10, 20, seed=0)


def test_square_distances_in_blocks():
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(n, 5, dtype=torch.float64, generator=g) for n in (7, 4))
    found = torch.cat([d.clone() for _, d in square_distances(a, b, block=3)])
    torch.testing.assert_close(found, torch.cdist(a, b) ** 2)


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 7), (90, 100), (7, 7)])
def test_interval_of_a_proportion_is_what_the_score_test_would_not_reject(hits, count):
    """At both ends of Wilson's interval (share - p)^2 = z^2 p (1 - p) / N; both lie in [0, 1]."""
    found = proportion(hits / count, count, n=(count, 0))
    for p in found.interval[:2]:
        assert -1e-12 <= p <= 1 + 1e-12
        assert (found.value - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / count, abs=1e-6)
    assert found.interval[1] - found.interval[0] > 0.1
