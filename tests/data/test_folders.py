"""Folders of images: classes, splits, streaming, and what is refused with which message."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import genrep
from genrep.contracts import DataSpec
from genrep.data import describe, load
from genrep.data import folders as module
from genrep.data.folders import Folder, Format

RNG = np.random.RandomState(0)


def draw(path, shape=(6, 5, 3), mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.randint(0, 256, shape).astype(np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return pixels


def batch(data):
    return data[torch.arange(len(data))]


def test_plain_folder_holds_the_pixels_without_labels(tmp_path):
    drawn = {draw(tmp_path / f"{i}.png").transpose(2, 0, 1).tobytes() for i in range(20)}
    splits = load(tmp_path)
    assert splits.spec == load(tmp_path).spec
    assert splits.spec.shape == (3, 6, 5)
    assert (splits.spec.levels, splits.spec.classes) == (256, 0)
    assert "20 images, 5 x 6 RGB" in splits.about["inferred"]
    found = {x.numpy().tobytes() for data in splits[1:4] for x in batch(data).x}
    assert found == drawn


@pytest.mark.parametrize("memory_limit", [2**30, 1])
def test_sub_folders_are_classes(tmp_path, memory_limit):
    labels = {draw(tmp_path / c / f"{i}.png", (6, 5)).tobytes(): c for c in ("ape", "bee") for i in range(10)}
    splits = load(tmp_path, memory_limit=memory_limit)
    assert splits.about["class_names"] == ["ape", "bee"]
    assert splits.about["class_counts"] == {"train": [8, 8], "validation": [1, 1], "test": [1, 1]}
    for data in splits[1:4]:
        for x, y in zip(*batch(data), strict=True):
            assert labels[x.numpy().tobytes()] == ["ape", "bee"][y]


def test_train_and_test_folders_are_splits(tmp_path):
    for split, n in {"train": 10, "val": 3, "test": 4}.items():
        for c in ("a", "b"):
            for i in range(n):
                draw(tmp_path / split / c / f"{i}.png")
    for limit in (2**30, 1):
        splits = load(tmp_path, memory_limit=limit)
        assert splits.about["counts"] == {"train": 20, "validation": 6, "test": 8}
        assert splits.about["class_counts"]["test"] == [4, 4]


def test_streamed_images_are_those_in_memory(tmp_path):
    for i in range(30):
        draw(tmp_path / str(i % 2) / f"{i:02}.png")
    memory, disk = load(tmp_path, seed=3), load(tmp_path, seed=3, memory_limit=1)
    assert any("read on access" in note for note in disk.about["inferred"])
    index = torch.tensor([5, 0, 5, 11])
    for ours, theirs in zip(memory[1:4], disk[1:4], strict=True):
        one, two = ours[index % len(ours)], theirs[index % len(theirs)]
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)
    assert memory.spec == disk.spec
    assert describe(disk)["range"] is None


def test_streaming_200_000_images_takes_bounded_memory(tmp_path):
    draw(tmp_path / "one.png", (32, 32, 3))
    tracemalloc.start()
    data = Folder([tmp_path / "one.png"] * 200_000, None, Format((32, 32), 3, 8), DataSpec((3, 32, 32), levels=256))
    x = data[torch.randint(0, 200_000, (64,))].x
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.shape == (64, 3, 32, 32)
    assert peak < 100 * 2**20  # the pixels would take 614 MB


def test_training_and_measuring_read_a_batch_at_a_time_from_disk(tmp_path, monkeypatch):
    """Counted: no pass over the pixels is ever made, so that memory does not grow with the number of files."""
    for i in range(120):
        draw(tmp_path / f"{i:03}.png", (6, 6))
    asked = []
    decode = module.decode_all
    monkeypatch.setattr(module, "decode_all", lambda files, form: asked.append(len(files)) or decode(files, form))
    splits = load(tmp_path, memory_limit=0)
    assert asked == [], "the format is known from the headers"
    small = {"network": "dense", "width": 8, "depth": 1, "latent": 2}
    how = {"batch": 8, "validate_every": 5, "precision": "float32", "channels_last": "no", "device": "cpu"}
    genrep.fit("vae", splits, steps=10, options=small, progress=False, **how)
    held_out = 2 * [8, 4]  # 12 images, in batches of 8
    assert sorted(asked) == sorted([8] * 10 + held_out)


def test_black_and_white_has_two_levels(tmp_path):
    for i in range(10):
        draw(tmp_path / f"{i}.png", (6, 5), "1")
    for limit in (2**30, 1):
        splits = load(tmp_path, memory_limit=limit)
        assert splits.spec.levels == 2
        assert set(batch(splits.train).x.flatten().tolist()) == {0, 1}


def test_given_levels_are_checked(tmp_path):
    for i in range(10):
        draw(tmp_path / f"{i}.png", (6, 5))
    with pytest.raises(ValueError, match=r"whole numbers in \[0, 17\)"):
        load(tmp_path, levels=17)
    with pytest.raises(ValueError, match=r"Expected levels in \[0, 17\)"):
        batch(load(tmp_path, levels=17, memory_limit=1).train)
    with pytest.raises(ValueError, match="Expected 2 to 256 levels"):
        load(tmp_path, levels=0)


def test_palettes_become_rgb(tmp_path):
    for i in range(10):
        draw(tmp_path / f"{i}.gif")
    assert load(tmp_path).spec.shape == (3, 6, 5)


def fill(tmp_path, n=10):
    for i in range(n):
        draw(tmp_path / f"{i}.png")


def test_mixed_sizes_name_two_files(tmp_path):
    fill(tmp_path)
    draw(tmp_path / "z.png", (7, 5, 3))
    with pytest.raises(ValueError, match=r"0.png is 5 x 6 RGB, .*z.png is 5 x 7 RGB. Resize or convert.*resize"):
        load(tmp_path)


def test_mixed_modes_name_two_files(tmp_path):
    fill(tmp_path)
    draw(tmp_path / "z.png", (6, 5))
    with pytest.raises(ValueError, match=r"0.png is 5 x 6 RGB, .*z.png is 5 x 6 grey"):
        load(tmp_path)


def test_strange_modes_are_named(tmp_path):
    fill(tmp_path)
    draw(tmp_path / "5.jpg", (6, 5, 3), "CMYK")
    with pytest.raises(ValueError, match=r"5.jpg has mode CMYK: expected one of 1, L, RGB"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_broken_file_is_named(tmp_path, content):
    fill(tmp_path)
    file = tmp_path / "5.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 40] if content is None else content)
    with pytest.raises(ValueError, match=r"5.png is broken.*Repair it or take it out"):
        load(tmp_path)


def test_a_broken_body_is_named_when_streamed(tmp_path):
    fill(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"png is broken"):
        batch(load(tmp_path, memory_limit=1).train)


def test_a_file_that_changed_its_size_is_named_when_streamed(tmp_path):
    fill(tmp_path)
    splits = load(tmp_path, memory_limit=1)
    for i in range(10):
        draw(tmp_path / f"{i}.png", (9, 9, 3))
    with pytest.raises(ValueError, match=r"Expected 5 x 6 RGB as the other images, .*png is 9 x 9 RGB"):
        batch(splits.train)


@pytest.mark.parametrize("sub", ["", "class"])
def test_no_images(tmp_path, sub):
    (tmp_path / sub).mkdir(exist_ok=True)
    (tmp_path / sub / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"There are no images in .*Images end in .png"):
        load(tmp_path)


def test_images_beside_folders_and_nested_folders_are_refused(tmp_path):
    fill(tmp_path)
    draw(tmp_path / "class" / "a.png")
    with pytest.raises(ValueError, match=r"holds both images \(0.png\) and folders \(class\)"):
        load(tmp_path)
    draw(tmp_path / "other" / "class" / "deep" / "a.png")
    with pytest.raises(ValueError, match=r"class holds a folder \(deep\)"):
        load(tmp_path / "other")


def test_other_files_are_left_out_and_said(tmp_path):
    fill(tmp_path)
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / ".hidden").write_text("hello")
    assert "1 files left out, not named as images, such as README.txt" in load(tmp_path).about["inferred"]


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(module, "_MOST_PIXELS", 20)
    with pytest.raises(ValueError, match=r"0.png is too large: 5 x 6, more than 20 pixels"):
        load(tmp_path)


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])  # ours; Pillow warns; Pillow raises
def test_a_real_bomb_is_refused(tmp_path, side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    with pytest.raises(ValueError, match=r"bomb.png is too large"):
        load(tmp_path)


def test_splits_with_different_classes_are_refused(tmp_path):
    draw(tmp_path / "train" / "a" / "0.png")
    draw(tmp_path / "test" / "b" / "0.png")
    with pytest.raises(ValueError, match="different classes"):
        load(tmp_path)
    draw(tmp_path / "more" / "0.png")
    with pytest.raises(ValueError, match="beside them only validation may stand"):
        load(tmp_path)


@pytest.mark.parametrize("how", [{"label": "a"}, {"condition": ["a"]}, {"layout": "NCHW"}])
def test_options_without_meaning_are_refused(tmp_path, how):
    fill(tmp_path)
    with pytest.raises(ValueError, match="A folder of images takes no "):
        load(tmp_path, **how)
