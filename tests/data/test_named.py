"""Named sets against what their sources promise, and the way their files are found and checked."""

import functools
import hashlib
import http.server
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from genrep.data import describe, load, named, names, readers
from genrep.data.sources import File, fetch

needs_data = pytest.mark.skipif("GENREP_DATA" not in os.environ, reason="GENREP_DATA is not set: no files of data sets")

# name: shape, levels, classes, train, validation, test
EXPECTED = {
    "mnist": ((1, 28, 28), 256, 10, 55000, 5000, 10000),
    "mnist_binary": ((1, 28, 28), 2, 10, 55000, 5000, 10000),
    "fashion_mnist": ((1, 28, 28), 256, 10, 55000, 5000, 10000),
    "omniglot": ((1, 28, 28), 256, 0, 17352, 1928, 13180),
    "omniglot_drawers": ((1, 28, 28), 256, 50, 23371, 2597, 6492),
    "usps": ((1, 16, 16), 256, 10, 6562, 729, 2007),
    "cifar10": ((3, 32, 32), 256, 10, 45000, 5000, 10000),
    "cifar10_lossless": ((3, 32, 32), 256, 10, 3150, 350, 500),
    "mnist_m": ((3, 32, 32), 256, 10, 4500, 500, 1000),
    "svhn_sample": ((3, 32, 32), 256, 10, 105, 12, 13),
    "emnist_letters": ((1, 28, 28), 256, 26, 23400, 2600, 5200),
    "celeba": ((3, 64, 64), 256, 0, 8100, 900, 1000),
    "malaria": ((1, 50, 50), 256, 2, 8197, 803, 2000),
    "bsds300_patches": ((1, 8, 8), 256, 0, 80000, 8000, 24000),
    "shapes": ((3, 32, 32), 256, 3, 9000, 1000, 2000),
    "showers": ((1, 44, 44), None, 0, 7200, 800, 2000),
    "bsds300": ((63,), None, 0, 80000, 8000, 24000),
    "tiny_shakespeare": ((64,), 65, 0, 15685, 871, 871),
    "magic": ((10,), None, 2, 13694, 1522, 3804),
    "uci_concrete": ((9,), None, 0, 834, 93, 103),
    "uci_energy": ((9,), None, 0, 622, 69, 77),
    "uci_kin8nm": ((9,), None, 0, 6636, 737, 819),
    "uci_naval_propulsion_plant": ((16,), None, 0, 9667, 1074, 1193),
    "uci_power_plant": ((5,), None, 0, 7750, 861, 957),
    "uci_protein_tertiary_structure": ((10,), None, 0, 37041, 4116, 4573),
    "uci_wine_quality_red": ((12,), None, 0, 1295, 144, 160),
    "uci_yacht": ((7,), None, 0, 249, 28, 31),
}
MADE = ("shapes", "showers")  # by the package, from no file
loaded = functools.cache(load)
faces = functools.cache(readers.celeba)  # decoding takes seconds, what is tested here comes after it


@pytest.fixture(autouse=True)
def _decode_faces_once(monkeypatch):
    source = named.SOURCES["celeba"]
    monkeypatch.setitem(named.SOURCES, "celeba", source._replace(read=lambda paths, seed: faces(tuple(paths), seed)))


def test_every_name_is_expected():
    assert set(names()) == {*EXPECTED, "digits", "power", "gas", "hepmass", "miniboone"}  # the last: tested elsewhere


def test_digits_are_those_of_scikit_learn_in_a_fixed_stratified_split():
    from sklearn.datasets import load_digits

    splits, source = load("digits"), load_digits()
    assert splits.spec == splits.test.spec
    assert (splits.spec.shape, splits.spec.levels, splits.spec.classes) == ((1, 8, 8), 17, 10)
    assert splits.about["counts"] == {"train": 1197, "validation": 240, "test": 360}
    ours = sorted((x.numpy().tobytes(), int(y)) for d in splits[1:4] for x, y in zip(d.x.flatten(1), d.y, strict=True))
    theirs = sorted((x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(source.data, source.target, strict=True))
    assert ours == theirs
    share = np.array(splits.about["class_counts"]["test"]) / np.bincount(source.target)
    assert np.abs(share - 360 / 1797).max() < 0.01
    other = load("digits", seed=1)
    assert torch.equal(other.test.x, splits.test.x)  # the test set never moves
    assert not torch.equal(other.validation.x, splits.validation.x)


@needs_data
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_named_sets_hold_what_their_source_promises(name):
    splits = loaded(name)
    shape, levels, classes, *counts = EXPECTED[name]
    assert (splits.spec.shape, splits.spec.levels, splits.spec.classes) == (shape, levels, classes)
    assert list(splits.about["counts"].values()) == counts
    for data, n in zip(splits[1:4], counts, strict=True):
        assert len(data) == n
        assert data.x.dtype == (torch.float32 if levels is None else torch.uint8)
        if classes:
            assert torch.equal(data.y.unique(), torch.arange(classes))
    if levels:
        assert splits.train.x.min() == 0
        assert splits.train.x.max() >= 0.875 * (levels - 1)
    else:
        assert all(torch.isfinite(data.x).all() for data in splits[1:4])
        torch.testing.assert_close(
            splits.train.x.double().transpose(0, 1).flatten(1).mean(1).float(),
            torch.tensor(splits.spec.mean),
            rtol=1e-5,
            atol=1e-5,
        )
    json.dumps(describe(splits), allow_nan=False)
    assert splits.about.get("md5") or name in MADE


@needs_data
def test_official_order_and_labels_of_mnist():
    # the last test labels and the first test digit (a 7) are those that everybody knows
    test = loaded("mnist").test
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert int(test.x[0].sum()) == 18454
    assert loaded("mnist").about["class_names"][7] == "7"


@needs_data
def test_lossless_and_jpeg_twins_of_cifar10_agree():
    clear, folder = loaded("cifar10_lossless"), Path(os.environ["GENREP_DATA"])
    with np.load(folder / "cifar10/cifar10_full_jpegq75.npz") as file:
        jpeg, offsets, labels = file["train_jpeg"], file["train_offsets"], file["train_labels"]
    twins = readers.decode_jpeg(jpeg, offsets[3500:4001]).astype(float)
    error = ((clear.test.x.numpy() - twins) ** 2).mean((1, 2, 3))
    assert np.median(error) < 65  # 30 dB
    assert error.max() < 650  # 20 dB: no image is another one, those are thousands apart
    assert clear.test.y.tolist() == labels[3500:4000].tolist()


@needs_data
def test_splits_of_patients_do_not_share_any():
    splits, path = loaded("malaria"), Path(os.environ["GENREP_DATA"]) / "malaria/malaria_cells_50x50_grey.npz"
    with np.load(path) as file:
        patient = {
            x.tobytes(): re.findall(r"^C\d+", n)[0]
            for s in ("train", "test")
            for x, n in zip(file[f"{s}_images"], file[f"{s}_names"], strict=True)
        }
    of = [{patient[x.numpy().tobytes()] for x in data.x} for data in splits[1:4]]
    assert [len(p) for p in of] == [144, 16, 40]
    assert len(set.union(*of)) == 200


@needs_data
def test_choices_of_omniglot():
    alphabet = load("omniglot", label="alphabet")
    assert alphabet.spec.classes == 50
    assert alphabet.train.y.unique().tolist() == list(range(30))
    assert alphabet.test.y.unique().tolist() == list(range(30, 50))
    assert alphabet.about["class_names"][30] == "Angelic"
    character = load("omniglot", label="character")
    assert character.spec.classes == 1623
    assert np.sum(character.about["class_counts"]["test"]) == 13180
    assert set(character.about["class_counts"]["test"][964:]) == {20}
    with pytest.raises(ValueError, match="Unknown label of omniglot 'alphabt'. Did you mean 'alphabet'"):
        load("omniglot", label="alphabt")


@needs_data
def test_drawers_of_omniglot_share_alphabets_and_no_drawing():
    found = load("omniglot_drawers")
    assert found.test.y.bincount().tolist()[30] == 80  # Angelic: 20 characters, 4 drawers
    assert found.train.y.unique().tolist() == found.test.y.unique().tolist() == list(range(50))
    rows = [{bytes(x.numpy()) for x in part.x[:].flatten(1)} for part in (found.train, found.test)]
    assert len(rows[0] & rows[1]) < 0.002 * len(rows[1])  # two hands may make the same stroke


@needs_data
def test_hair_of_celeba_is_one_of_six():
    hair, bald = load("celeba", label="hair"), load("celeba", label="Bald")
    assert hair.spec.classes == 6
    assert set(hair.test.y.unique().tolist()) == {-1, 0, 1, 2, 3, 4, 5}
    assert (bald.test.y[hair.test.y == 4] == 1).all()
    assert (bald.test.y[(hair.test.y >= 0) & (hair.test.y != 4)] == 0).all()


@needs_data
def test_attributes_of_celeba():
    plain, smiling = loaded("celeba"), load("celeba", label="Smiling")
    assert torch.equal(plain.test.x, smiling.test.x)
    assert smiling.spec.classes == 2
    known = sum(int((d.y >= 0).sum()) for d in smiling[1:4])
    assert known == 6128
    assert sum(smiling.about["unlabelled"].values()) == 10000 - 6128
    conditional = load("celeba", condition=["Smiling", "Male"])
    assert conditional.spec.condition == 2
    assert sum(conditional.about["counts"].values()) == 6128
    on = conditional.condition([1.0, 0.0])
    assert torch.isclose(conditional.train.y, on).all(1).any()
    # the share of smiles among known labels is the mean of the condition before standardising
    assert 0.4 < conditional.about["condition_mean"][0] < 0.6


@needs_data
def test_tables_can_be_conditioned_on_their_columns():
    splits = load("uci_yacht", condition=["target"])
    whole = loaded("uci_yacht")
    assert splits.spec.shape == (6,)
    assert torch.equal(splits.test.x, whole.test.x[:, :6])
    torch.testing.assert_close(splits.condition(whole.test.x[:, 6:]), splits.test.y)
    with pytest.raises(ValueError, match="Unknown column of uci_yacht 'y'"):
        load("uci_yacht", condition=["y"])
    assert load("magic", condition=["Alpha"]).spec.classes == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"levels": 2}, "named set digits takes no levels="),
        ({"layout": "NCHW"}, "takes no layout="),
        ({"label": "x"}, "digits has its labels already"),
        ({"condition": ["x"]}, "digits has no columns to condition on"),
        ({"label": "x", "condition": ["x"]}, "labels or conditions, not both"),
        ({"seed": -1}, "seed in"),
    ],
)
def test_options_without_meaning_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        load("digits", **how)


CONTENT = b"the official bytes"
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A web server that has the file, and an empty cache."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.bin").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "www"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("GENREP_DATA", raising=False)
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_file_is_downloaded_once_and_verified(home, tmp_path):
    file = File("set/a.bin", MD5, home + "a.bin")
    path = fetch(file)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    (tmp_path / "www" / "a.bin").unlink()
    assert fetch(file) == path
    with pytest.raises(ValueError, match=r"Cannot download .*b.bin.*Set GENREP_DATA to a folder that holds set/b.bin"):
        fetch(File("set/b.bin", MD5, home + "b.bin"))


def test_wrong_bytes_from_the_network_are_refused(home):
    with pytest.raises(ValueError, match="does not match the known hash"):
        fetch(File("set/a.bin", "0" * 32, home + "a.bin"))


def test_the_local_folder_comes_first_and_is_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("GENREP_DATA", str(tmp_path))
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(File("a.bin", MD5)) == tmp_path / "a.bin"
    (tmp_path / "a.bin").write_bytes(b"other bytes")
    with pytest.raises(ValueError, match=f"a.bin is not the file expected: md5 .* instead of {MD5}"):
        fetch(File("a.bin", MD5))


@pytest.mark.parametrize("folder", [None, "/nowhere"])
def test_a_set_without_a_home_says_what_is_expected(monkeypatch, folder):
    monkeypatch.delenv("GENREP_DATA", raising=False)
    if folder:
        monkeypatch.setenv("GENREP_DATA", folder)
    with pytest.raises(ValueError, match=r"set GENREP_DATA to a folder that holds usps/usps_16x16.npz \(md5 b95e"):
        load("usps")


def test_every_file_has_a_checksum_and_only_official_homes():
    files = [file for source in named.SOURCES.values() for file in source.files]
    assert all(re.fullmatch("[0-9a-f]{32}", file.md5) for file in files)
    assert {f.url.split("/")[2] for f in files if f.url} == {
        "ossci-datasets.s3.amazonaws.com",
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    }
