"""Shapes: what their factors say is what is drawn."""

import numpy as np
import pytest

from genrep.data import load, shapes


def images(**values):
    """Images in which the given factors take their values and the others are the first."""
    n = max(len(v) for v in values.values())
    columns = [values.get(name, np.zeros(n, dtype=int)) for name in shapes.FACTORS]
    return shapes.draw(np.stack([np.broadcast_to(c, n) for c in columns], 1)).astype(float)


def test_position_scale_and_colour_are_as_said():
    k = np.arange(8)
    x = images(x=k, y=k[::-1], scale=np.full(8, 2)).sum(1)
    axis = np.arange(32)
    column, row = ((x * a).sum((1, 2)) / x.sum((1, 2)) for a in (axis[None, None], axis[None, :, None]))
    np.testing.assert_allclose(column, 10 + k * 12 / 7, atol=0.05)
    np.testing.assert_allclose(row, 10 + k[::-1] * 12 / 7, atol=0.05)
    sizes = images(scale=np.arange(4)).sum((1, 2, 3)) / 255  # a red square of side 1.6 r
    np.testing.assert_allclose(sizes, (1.6 * (4 + np.arange(4) * 4 / 3)) ** 2, rtol=0.06)
    areas = images(shape=np.arange(3), scale=np.full(3, 3)).sum((1, 2, 3)) / 255 / 64
    np.testing.assert_allclose(areas, [1.6**2, np.pi * 0.5, 0.75 * np.sqrt(3)], rtol=0.06)
    colours = images(colour=np.arange(6)).max((2, 3)) / 255
    assert colours.round().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]


def test_rotation_turns_and_none_repeats():
    """The long axis of the ellipse turns by 90 / 8 degrees a step; of every shape all eight images differ."""
    x = images(shape=np.full(8, 1), rotation=np.arange(8), scale=np.full(8, 3), x=np.full(8, 3), y=np.full(8, 3)).sum(1)
    axis = np.arange(32) - (10 + 36 / 7)
    u, v = axis[None, None], axis[None, :, None]
    angle = 0.5 * np.arctan2(2 * (x * u * v).sum((1, 2)), (x * (u**2 - v**2)).sum((1, 2)))
    np.testing.assert_allclose(np.degrees(angle), np.arange(8) * 90 / 8, atol=0.5)
    for shape in range(3):
        turned = images(shape=np.full(8, shape), rotation=np.arange(8), scale=np.full(8, 3))
        assert len(np.unique(turned, axis=0)) == 8


def test_the_set():
    splits = load("shapes")
    assert splits.spec.shape == (3, 32, 32)
    assert splits.spec.levels == 256
    assert splits.about["class_names"] == ["square", "ellipse", "triangle"]
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [9000, 1000, 2000]
    train, test = shapes.combinations()
    assert not np.intersect1d(train, test).size
    by_factor = load("shapes", condition=list(shapes.FACTORS))
    std, mean = (np.array(by_factor.about[f"condition_{k}"]) for k in ("std", "mean"))
    values = by_factor.test.y.numpy() * std + mean
    np.testing.assert_allclose(values, shapes.factors(test), atol=1e-4)
    np.testing.assert_array_equal(shapes.draw(shapes.factors(test)), by_factor.test.x.numpy())
    assert load("shapes", label="scale").spec.classes == 4


def test_values_are_checked():
    with pytest.raises(ValueError, match="Expected colour in 0..5, got 6..6"):
        shapes.draw(np.array([[0, 0, 0, 0, 0, 6]]))
    with pytest.raises(ValueError, match=r"\(N, 6\), got shape \(1, 5\)"):
        shapes.draw(np.zeros((1, 5)))
