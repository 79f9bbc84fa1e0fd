"""Arrays of the user: what is inferred, what is held out, and what is refused with which message."""

import json

import numpy as np
import pytest
import torch

from genrep.data import describe, from_arrays
from genrep.data.splits import hold_out

RNG = np.random.RandomState(0)


def images(n=30, *shape, high=256, dtype=np.uint8):
    x = RNG.randint(0, high, (n, *(shape or (6, 5)))).astype(dtype)
    x.flat[0] = high - 1
    return x


def everything(splits):
    return torch.cat([splits.train.x, splits.validation.x, splits.test.x])


@pytest.mark.parametrize(
    ("x", "shape", "levels", "note"),
    [
        (images(30, 6, 5), (1, 6, 5), 256, "levels 256, from uint8"),
        (images(30, 6, 5, high=2), (1, 6, 5), 2, "levels 2, from uint8 with values 0 to 1"),
        (images(30, 6, 5, high=2, dtype=bool), (1, 6, 5), 2, "levels 2, from bool"),
        (images(30, 6, 5, high=17, dtype=np.int64), (1, 6, 5), 17, "levels 17, from int64 with values 0 to 16"),
        (images(30, 6, 5, 3), (3, 6, 5), 256, "layout NHWC, from the shape"),
        (images(30, 3, 6, 5), (3, 6, 5), 256, "layout NCHW, from the shape"),
        (images(30, 1, 6, 6), (1, 6, 6), 256, "layout NCHW"),
        (RNG.randn(30, 4), (4,), None, "real values"),
        (RNG.randn(30, 4).round() * 1.0, (4,), None, "pass levels= if they are levels"),
        (torch.randn(30, 3, 6, 5), (3, 6, 5), None, "real values"),
        (torch.randn(30, 4).bfloat16(), (4,), None, "real values"),
    ],
)
def test_what_is_inferred_is_right_and_said(x, shape, levels, note):
    splits = from_arrays(x)
    assert splits.spec.shape == shape
    assert splits.spec.levels == levels
    assert any(note in line for line in splits.about["inferred"]), splits.about["inferred"]
    json.dumps(describe(splits), allow_nan=False)


def test_channels_last_holds_the_same_pixels():
    x = images(20, 6, 5, 3)
    found = {tuple(e.permute(1, 2, 0).flatten().tolist()) for e in everything(from_arrays(x))}
    assert found == {tuple(e.flatten().tolist()) for e in x}


def test_layout_settles_what_the_shape_leaves_open():
    x = images(20, 4, 4, 4)
    with pytest.raises(ValueError, match=r"Both the second and the last size of x \(20, 4, 4, 4\).*layout='NHWC'"):
        from_arrays(x)
    assert torch.equal(from_arrays(x, layout="NHWC").train.x, from_arrays(x, layout="NCHW").train.x.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="Neither the second nor the last size"):
        from_arrays(images(20, 2, 6, 6))


def test_levels_turn_whole_floats_into_integers():
    splits = from_arrays(images(30, 5, 5, high=17).astype(np.float64), levels=17)
    assert splits.train.x.dtype == torch.uint8
    assert splits.spec.levels == 17
    wide = from_arrays(images(30, 5, 5, high=1000, dtype=np.uint16))
    assert wide.train.x.dtype == torch.int64
    assert wide.spec.levels == 1000


def test_real_values_stay_in_the_users_units_and_moments_come_from_train_only():
    x = RNG.randn(200, 3) * [1, 100, 1e-4] + [0, 5000, 1]
    splits = from_arrays(x)
    train = splits.train.x.double().numpy()
    np.testing.assert_allclose(splits.spec.mean, train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(splits.spec.std, train.std(0), rtol=1e-12)
    assert not np.allclose(splits.spec.mean, x.mean(0), rtol=1e-6)
    rows = np.sort(everything(splits).numpy(), axis=0)
    np.testing.assert_array_equal(rows, np.sort(x.astype(np.float32), axis=0))


def test_moments_of_images_are_per_channel():
    x = torch.randn(40, 3, 5, 5) * torch.tensor([1.0, 2, 3]).view(3, 1, 1)
    splits = from_arrays(x)
    torch.testing.assert_close(
        torch.tensor(splits.spec.std), splits.train.x.double().std((0, 2, 3), correction=0).float()
    )


def test_splits_are_disjoint_complete_and_a_function_of_the_seed():
    x = np.arange(400, dtype=np.int64).reshape(100, 4)
    splits = from_arrays(x, seed=4)
    assert splits.about["counts"] == {"train": 80, "validation": 10, "test": 10}
    assert everything(splits).flatten().sort().values.tolist() == list(range(400))
    assert torch.equal(splits.test.x, from_arrays(x, seed=4).test.x)
    assert not torch.equal(splits.test.x, from_arrays(x, seed=5).test.x)
    assert any("seed 4" in line for line in splits.about["split"])


def test_labels_are_held_out_in_proportion():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    splits = from_arrays(images(100), y)
    assert splits.about["class_counts"] == {"train": [48, 24, 8], "validation": [6, 3, 1], "test": [6, 3, 1]}
    assert splits.spec.classes == 3
    x = np.arange(100, dtype=np.int64)[:, None].repeat(2, 1)
    pairs = from_arrays(x, y)
    for data in (pairs.train, pairs.validation, pairs.test):
        assert data.y.tolist() == y[data.x[:, 0]].tolist()


def test_hold_out_leaves_every_class_in_training():
    strata = np.array([0] * 20 + [1] * 2 + [2])
    kept, held = hold_out(23, 12, 0, strata)
    assert set(strata[kept]) == {0, 1, 2}
    assert len(held) == 12
    assert set(kept) | set(held) == set(range(23))


def test_hold_out_is_the_same_forever():
    assert hold_out(12, 4, 0)[1].tolist() == [4, 6, 10, 11]  # RandomState(0).permutation(12) starts 6, 11, 4, 10


def test_conditions_are_standardised_by_train_and_convertible():
    y = RNG.randn(100, 2) * [3, 50] + [1, 400]
    x = np.arange(100, dtype=np.int64)[:, None].repeat(2, 1)
    splits = from_arrays(x, y)
    assert splits.spec.condition == 2
    assert splits.spec.classes == 0
    torch.testing.assert_close(splits.train.y.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(splits.train.y.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(splits.condition(y[splits.test.x[:, 0]]), splits.test.y)
    with pytest.raises(ValueError, match="has no condition columns"):
        from_arrays(x).condition([1.0])


TABLE = RNG.randn(20, 3)


@pytest.mark.parametrize(
    ("x", "y", "how", "message"),
    [
        (images(20), [0] * 19, {}, r"one label for each of the 20 examples of train, got y of shape \(19,\)"),
        (images(20), [-1] * 20, {}, "labels in .0, classes., the smallest of train is -1"),
        (images(20), [0.5] * 20, {}, "integer labels .N,. or float conditions .N, C., got float32"),
        (images(20), np.eye(20, dtype=int), {}, "integer labels"),
        (images(20), ["a"] * 20, {}, "Expected numbers as y of train"),
        (images(20), [0] * 19 + [99], {}, "up to 99 with only 20 training examples"),
        (images(20), np.full((20, 1), np.nan), {}, "not finite.*condition 0"),
        (images(20), np.ones((20, 1)), {}, "same condition condition 0"),
        (images(20, 7, dtype=np.int64) - 300, None, {}, "Expected integers >= 0, the smallest is -"),
        (images(20) * 0, None, {}, "2 to 65536 levels, got 1"),
        (images(20), None, {"levels": 17}, r"whole numbers in \[0, 17\), got uint8 with values 0 to 255"),
        (TABLE, None, {"levels": 17}, r"whole numbers in \[0, 17\)"),
        (TABLE, None, {"layout": "NCHW"}, "layout= is for arrays"),
        (images(20, 3, 4, 5), None, {"layout": "CHWN"}, "Expected layout NCHW or NHWC, got 'CHWN'"),
        (TABLE, None, {"seed": -1}, "seed in"),
        (images(20)[:, 0, 0], None, {}, r"Expected x of shape \(N, D\)"),
        (images(2), None, {}, "Cannot hold 1 of 1"),
        (images(20)[:0], None, {}, "empty"),
        (np.array([["a", "b"]] * 5), None, {}, "Expected numbers as x of train, got <U1"),
        (np.array([[{}]] * 5), None, {}, "Expected numbers as x of train, got object"),
        (np.ones((5, 2), complex), None, {}, "got complex128"),
        (np.where(np.arange(60).reshape(20, 3) == 31, np.nan, TABLE), None, {}, "1 values.*nan in row 10.*column 1"),
        (np.where(np.arange(60).reshape(20, 3) == 31, np.inf, TABLE), None, {}, "inf in row 10.*column 1"),
        (np.where(np.arange(3) == 1, 7.0, TABLE), None, {}, "same column column 1: leave constant columns out"),
        (TABLE * [1, 1, 1e-60], None, {}, "same column column 2"),
    ],
)
def test_bad_arrays_are_refused(x, y, how, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(x, y, **how)


def test_values_too_large_for_float32_are_refused():
    x = TABLE.copy()
    x[3, 2] = 1e300
    with pytest.raises(
        ValueError, match="1 values are not finite as float32; the first is inf in row 3 of train, column 2"
    ):
        from_arrays(x)


def test_tables_that_leave_a_density_unbounded_are_called_out():
    x = RNG.randn(200, 3)
    x[:, 1] = x[:, 0]
    x[:, 2] = RNG.randint(0, 3, 200)
    notes = " ".join(from_arrays(x).about["inferred"])
    assert "equal to another column: column 1" in notes
    assert "few distinct values: column 2" in notes
    assert "unbound" not in " ".join(from_arrays(TABLE).about["inferred"])
