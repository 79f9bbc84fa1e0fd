"""Grids hold every pixel where it belongs; descriptions and sheets show the data that they are given."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genrep.contracts import DataSpec
from genrep.data import contact_sheet, describe, from_arrays, grid, picture


@pytest.mark.parametrize("c", [1, 3, 4])
def test_grid_holds_every_pixel(c):
    x = torch.randint(0, 256, (5, c, 50, 60), dtype=torch.uint8)
    sheet = np.asarray(grid(x, columns=2)).reshape(3 * 52 + 2, 2 * 62 + 2, c)
    for i in range(5):
        top, left = i // 2 * 52 + 2, i % 2 * 62 + 2
        np.testing.assert_array_equal(sheet[top : top + 50, left : left + 60], x[i].permute(1, 2, 0).numpy())
    assert (sheet[106:, 64:] == 128).all()  # the tile that no image fills


def test_small_images_are_enlarged_without_smoothing():
    sheet = np.asarray(grid(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)))
    assert sheet.shape == (52, 52)
    tile = sheet[2:50, 2:50]
    assert set(tile.flatten().tolist()) == {0, 255}
    assert (tile[:24, 24:] == 255).all()
    assert (tile[:24, :24] == 0).all()


@pytest.mark.parametrize("levels", [2, 17, 256, 1000])
def test_levels_span_black_to_white(levels):
    x = torch.tensor([0, levels - 1]).view(2, 1, 1, 1).expand(2, 1, 48, 48)
    sheet = np.asarray(picture(x, DataSpec((1, 48, 48), levels), columns=2))
    assert sheet[10, 10] == 0
    assert sheet[10, 60] == 255


def test_real_values_span_black_to_white():
    x = torch.linspace(-3.0, 5.0, 48 * 48).view(1, 1, 48, 48)
    sheet = np.asarray(picture(x, DataSpec((1, 48, 48))))[2:50, 2:50]
    assert (sheet[0, 0], sheet[-1, -1]) == (0, 255)
    assert (np.diff(sheet.flatten().astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("x", "spec", "message"),
    [
        (torch.zeros(2, 5), DataSpec((5,)), "Expected images .C, H, W. to draw"),
        (torch.zeros(2, 2, 4, 4), DataSpec((2, 4, 4)), "C of 1, 3 or 4"),
        (torch.full((2, 1, 4, 4), torch.nan), DataSpec((1, 4, 4)), "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(x, spec, message):
    with pytest.raises(ValueError, match=message):
        picture(x, spec)


def test_sheet_is_ordered_by_class_and_seeded(tmp_path):
    y = torch.arange(100) % 5
    x = (y * 60).to(torch.uint8).view(100, 1, 1, 1).expand(100, 1, 48, 48).contiguous()
    data = from_arrays(x, y, levels=256).train
    contact_sheet(data, tmp_path / "a.png", n=16, seed=1)
    contact_sheet(data, tmp_path / "b.png", n=16, seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (4 * 50 + 2,) * 2
    shades = sheet[10::50, 10::50].flatten().astype(int)
    assert (np.diff(shades) >= 0).all()
    assert len(set(shades)) == 5
    with pytest.raises(ValueError, match="n >= 1"):
        contact_sheet(data, tmp_path / "c.png", n=0)
    assert not (tmp_path / "c.png").exists()


def test_sheet_of_a_table_has_panels(tmp_path):
    splits = from_arrays(np.random.RandomState(0).randn(50, 40))
    contact_sheet(splits.train, tmp_path / "table.png")
    with Image.open(tmp_path / "table.png") as sheet:
        assert sheet.format == "PNG"
        assert len(np.unique(np.asarray(sheet))) > 10


def test_description_counts_what_is_there():
    x = np.random.RandomState(0).randint(0, 5, (50, 4, 4))
    x[0, 0, 0], y = 4, np.arange(50) % 3
    found = describe(from_arrays(x, y))
    assert found["shape"] == [1, 4, 4]
    assert found["levels"] == 5
    assert found["range"] == [0, 4]
    assert sum(found["counts"].values()) == 50
    total = {name: sum(found["class_counts"][s][name] for s in found["counts"]) for name in ("0", "1", "2")}
    assert total == {"0": 17, "1": 17, "2": 16}
    assert found["inferred"]
    json.dumps(found, allow_nan=False)


def test_description_of_a_table_has_its_units():
    x = np.random.RandomState(0).randn(50, 2) * [1, 100]
    splits = from_arrays(x, np.random.RandomState(1).randn(50, 1))
    found = describe(splits)
    assert found["std"] == list(splits.spec.std)
    assert found["condition"] == 1
    assert found["condition_mean"] == splits.about["condition_mean"]
