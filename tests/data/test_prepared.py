"""Labels for some, and other shapes."""

import numpy as np
import pytest
import torch
from PIL import Image

from genrep import data
from genrep.data.prepared import labelled, reshaped, unlabelled


def test_a_share_of_the_labels_is_balanced_and_seeded():
    digits = data.load("digits")
    some, again, other = labelled(digits, 0.1, 0), labelled(digits, 0.1, 0), labelled(digits, 0.1, 1)
    y = some.train.y
    assert torch.bincount(y[y >= 0]).tolist() == [12] * 10
    assert torch.equal(y[y >= 0], digits.train.y[y >= 0])
    assert torch.equal(y, again.train.y)
    assert not torch.equal(y, other.train.y)
    assert torch.equal(some.test.y, digits.test.y)
    assert some.about["class_counts"]["train"] == [12] * 10
    assert some.about["unlabelled"] == {"train": 1197 - 120}
    assert (digits.train.y >= 0).all(), "the original was changed"


def test_all_labels_can_be_hidden():
    assert (unlabelled(data.load("digits")).train.y == -1).all()


def test_a_set_remembers_how_it_was_prepared():
    splits = data.load("digits", shape=(3, 6, 6), labelled=0.5)
    assert splits.spec.shape == (3, 6, 6)
    origin = {k: v for k, v in splits.about["origin"].items() if k in ("data", "shape", "labelled")}
    again = data.load(origin.pop("data"), **origin)
    assert torch.equal(again.train.x, splits.train.x)
    assert torch.equal(again.train.y, splits.train.y)


def test_sizes_change_as_in_pillow():
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 20, 24), dtype=np.uint8)
    small = reshaped(data.from_arrays(x), (3, 9, 7)).train.x
    kept = data.from_arrays(x).train.x
    for image, mine in zip(kept[:5], small[:5], strict=True):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((7, 9), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(theirs).astype(int) - mine.permute(1, 2, 0).numpy()).max() <= 1


def test_grey_and_colour_for_each_other():
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 5), dtype=np.uint8)
    colour = data.from_arrays(x)
    grey = reshaped(colour, (1, 4, 5))
    theirs = Image.fromarray(colour.train.x[0].permute(1, 2, 0).numpy()).convert("L")
    assert np.abs(np.asarray(theirs).astype(int) - grey.train.x[0, 0].numpy()).max() <= 1
    back = reshaped(grey, (3, 4, 5))
    assert torch.equal(back.train.x, grey.train.x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"labelled": 0.0}, r"labelled in \(0, 1\]"),
        ({"labelled": 1.5}, r"labelled in \(0, 1\]"),
        ({"labelled": 0.001}, "less than one label for each of the 10 classes"),
        ({"labelled": 0.999}, "asks for 120 of every class"),
        ({"shape": (2, 8, 8)}, "grey (1) and colour (3)"),
        ({"shape": (8, 8)}, "C,H,W"),
    ],
)
def test_what_cannot_be_prepared_is_refused(how, message):
    with pytest.raises(ValueError, match=message.replace("(1)", r"\(1\)").replace("(3)", r"\(3\)")):
        data.load("digits", **how)


def test_tables_and_sets_without_labels_are_refused():
    table = data.from_arrays(np.random.default_rng(0).random((40, 3)))
    with pytest.raises(ValueError, match="no labels"):
        labelled(table, 0.5)
    with pytest.raises(ValueError, match="images over levels"):
        reshaped(table, (1, 2, 2))
