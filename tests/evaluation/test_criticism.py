"""Two-sample tests: p-values are uniform where nothing differs, and small where something does."""

import pytest
import torch
from scipy import stats

from genrep.evaluation.criticism import dimensions, joint


def normal(n, d, seed):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_joint_p_value_is_uniform_under_the_null():
    found = [
        joint(real=normal(40, 3, 2 * s), generated=normal(30, 3, 2 * s + 1), permutations=99, seed=s).p_value
        for s in range(150)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert min(found) >= 0.01


def test_false_rejections_of_dimensions_are_rare_and_not_impossible():
    rejected = [
        dimensions(real=normal(60, 8, 2 * s), generated=normal(60, 8, 2 * s + 1), alpha=0.2).p_value < 0.2
        for s in range(150)
    ]
    assert 8 <= sum(rejected) <= 45  # at most 30 expected; the exact test is conservative


def test_power_per_dimension_and_jointly():
    real, fake = normal(300, 6, 0), normal(300, 6, 1)
    fake[:, 2] += 0.5
    found = dimensions(real=real, generated=fake)
    assert [j for j, p in enumerate(found.p_values) if p < 0.05] == [2]
    assert found.rejected.value == pytest.approx(1 / 6)
    assert found.rejected.protocol["worst"] == 2
    assert joint(real=real, generated=fake).p_value < 0.01


def test_dependence_is_seen_jointly_and_not_per_dimension():
    """Equal margins, another correlation: what the joint test is for."""
    real, fake = normal(400, 2, 0), normal(400, 2, 1)
    fake[:, 1] = 0.9 * fake[:, 0] + (1 - 0.81) ** 0.5 * fake[:, 1]
    assert dimensions(real=real, generated=fake).p_value > 0.05
    assert joint(real=real, generated=fake).p_value < 0.01


def test_dead_codes_and_equal_sets_do_not_reject():
    x = normal(50, 3, 0)
    x[:, 1] = 0
    assert joint(real=x, generated=x.clone()).p_value == 1.0
    assert dimensions(real=x, generated=x.clone()).p_value == 1.0
    dead = torch.zeros(20, 2)
    assert joint(real=dead, generated=dead.clone()).p_value == 1.0


def test_collapse_onto_one_point_is_found():
    real = normal(100, 4, 0)
    fake = normal(1, 4, 1).expand(100, -1)
    assert joint(real=real, generated=fake).p_value < 0.01
    assert dimensions(real=real, generated=fake).rejected.value == 1


def test_bad_input():
    x = normal(30, 2, 0)
    with pytest.raises(ValueError, match="equal widths"):
        joint(real=x, generated=normal(30, 3, 1))
    with pytest.raises(ValueError, match="at least 19 permutations"):
        joint(real=x, generated=x, permutations=5)
    bad = x.clone()
    bad[4, 1] = torch.nan
    with pytest.raises(ValueError, match="row 4"):
        dimensions(real=x, generated=bad)
    with pytest.raises(ValueError, match="at least 2 rows"):
        dimensions(real=x[:1], generated=x)
