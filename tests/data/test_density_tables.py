"""The published preprocessing of the tables of density estimation, on small files with known content."""

import numpy as np
import pytest

from genrep import data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENREP_DATA", str(tmp_path))
    for name in ("power", "gas", "hepmass", "miniboone"):
        (tmp_path / name).mkdir()
    return tmp_path


def parts(name):
    splits = data.load(name)
    return splits, *(p.x.numpy().astype(np.float64) for p in splits[1:4])


def test_power(folder):
    rng = np.random.RandomState(0)
    x = rng.randn(1000, 8) * 50
    np.save(folder / "power" / "data.npy", x)
    splits, train, validation, test = parts("power")
    assert [len(p) for p in (train, validation, test)] == [810, 90, 100]
    assert train.shape[1] == 6
    both = np.vstack([train, validation])
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(both.std(0), 1, atol=1e-5)
    order = np.random.RandomState(42).permutation(1000)  # the shuffle of the rows is of the same generator
    kept = x[order][:, [0, 2, 4, 5, 6, 7]]
    expected = (kept[-100:] - kept[:900].mean(0)) / kept[:900].std(0)
    np.testing.assert_allclose(test, expected, atol=0.05)  # the noise is at most 1, on columns of scale 50
    np.testing.assert_allclose(test[:, 5], expected[:, 5], atol=1e-4)  # time has none
    assert np.abs(test[:, 2] - expected[:, 2]).max() > 1e-3
    assert "Papamakarios" in splits.about["split"][0]


def test_gas(folder):
    rng = np.random.RandomState(0)
    a, b, c = rng.randn(3, 500)
    columns = [a, a + 0.01 * b, b, c, b + 0.01 * c]  # two pairs above 0.98
    rows = np.column_stack([np.arange(500), rng.rand(500), rng.rand(500), *columns])
    np.savetxt(folder / "gas" / "ethylene_CO.txt", rows, header="Time CO Ethylene sensors", comments="")
    _, train, validation, test = parts("gas")
    assert [p.shape for p in (train, validation, test)] == [(405, 3), (45, 3), (50, 3)]
    whole = np.vstack([train, validation, test])
    np.testing.assert_allclose(whole.std(0, ddof=1), 1, atol=1e-5)
    expected = np.column_stack([columns[1], c, columns[4]])  # the first of each set goes
    np.testing.assert_allclose(whole, (expected - expected.mean(0)) / expected.std(0, ddof=1), atol=1e-4)


def test_hepmass(folder):
    rng = np.random.RandomState(0)
    label, x = rng.randint(2, size=400), rng.randn(400, 4)
    x[:, 2] = np.floor(np.abs(x[:, 2]))  # many rows at its smallest value
    for split, extra in (("train", []), ("test", [np.full(400, 1000)])):
        rows = np.column_stack([label, x, *extra])
        np.savetxt(folder / "hepmass" / f"1000_{split}.csv", rows, delimiter=",", header="label,a,b,c,d", comments="")
    _, train, validation, test = parts("hepmass")
    signal = x[label == 1]
    n = len(signal)
    assert [len(p) for p in (train, validation, test)] == [n - n // 10, n // 10, n]
    kept = signal[:, [0, 1, 3]]
    expected = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    np.testing.assert_allclose(np.vstack([train, validation]), expected, atol=1e-4)
    np.testing.assert_allclose(test, expected, atol=1e-4)


def test_miniboone(folder):
    x = np.random.RandomState(0).randn(200, 5) * 3 + 1
    np.save(folder / "miniboone" / "data.npy", x)
    _, train, validation, test = parts("miniboone")
    assert [len(p) for p in (train, validation, test)] == [162, 18, 20]
    np.testing.assert_allclose(test, (x[-20:] - x[:180].mean(0)) / x[:180].std(0), atol=1e-5)


@pytest.mark.parametrize("name", ["power", "gas", "hepmass", "miniboone"])
def test_missing_files_are_named(folder, name):
    with pytest.raises(ValueError, match=f"{name}/.* is not in GENREP_DATA"):
        data.load(name)


def test_bsds300(folder):
    rng = np.random.RandomState(0)
    from genrep.data import density

    patches = {f"{k}_patches": rng.randint(0, 256, (20, 8, 8)).astype(np.uint8) for k in ("train", "valid", "test")}
    np.savez(folder / "patches.npz", **patches)
    raw = density.bsds300([folder / "patches.npz"], 0)
    x = raw.parts["train"].x
    grey = patches["train_patches"].reshape(-1, 64) / 256
    assert x.shape == (20, 63)
    expected = (grey - grey.mean(1, keepdims=True))[:, :-1]
    assert np.abs(x - expected).max() < 1.5 / 256
    assert np.abs(x - expected).max() > 0.5 / 256
    again = density.bsds300([folder / "patches.npz"], 1).parts["train"].x
    np.testing.assert_array_equal(x, again)
