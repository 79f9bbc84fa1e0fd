"""NumPy files and tables of the user: what is read, and what is refused with which message."""

import csv
import io
import zipfile

import numpy as np
import pytest
import torch

from genrep.data import load

RNG = np.random.RandomState(0)
X = RNG.randint(0, 256, (40, 6, 5)).astype(np.uint8)
Y = np.arange(40) % 4


def npz(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def table(folder, text):
    (folder / "set.csv").write_text(text)
    return folder / "set.csv"


@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("images", "labels"), ("train_images", "train_labels")])
def test_npz_with_either_names(tmp_path, x, y):
    splits = load(npz(tmp_path, **{x: X, y: Y, "other": Y}))
    assert splits.spec.shape == (1, 6, 5)
    assert splits.spec.classes == 4
    assert splits.name == "set"
    assert f"train: {x} and {y}" in splits.about["inferred"]
    assert "left out: other" in splits.about["inferred"]


def test_npz_with_splits_keeps_them(tmp_path):
    path = npz(tmp_path, train_x=X, train_y=Y, test_x=X[:7], test_y=Y[:7], valid_x=X[:5], valid_y=Y[:5])
    splits = load(path)
    assert splits.about["counts"] == {"train": 40, "validation": 5, "test": 7}
    assert torch.equal(splits.test[torch.arange(7)].x[:, 0], torch.from_numpy(X[:7]))
    assert splits.about["split"] == []


def test_npz_arrays_chosen_as_label_and_condition(tmp_path):
    path = npz(tmp_path, x=X, y=Y, kind=Y // 2, energy=RNG.rand(40), angle=RNG.rand(40, 2))
    assert load(path, label="kind").spec.classes == 2
    splits = load(path, condition=["angle", "energy"])
    assert splits.spec.condition == 3
    assert splits.about["condition"] == ["angle[0]", "angle[1]", "energy"]
    with pytest.raises(ValueError, match="Unknown array of .* 'knd'. Did you mean 'kind'"):
        load(path, label="knd")


def test_class_names_are_kept(tmp_path):
    splits = load(npz(tmp_path, x=X, y=Y, class_names=np.array(list("abcd"))))
    assert splits.about["class_names"] == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="2 class names, but labels up to 3"):
        load(npz(tmp_path, x=X, y=Y, class_names=np.array(list("ab"))))


def test_npy_is_one_array(tmp_path):
    np.save(tmp_path / "a.npy", RNG.randn(40, 3))
    assert load(tmp_path / "a.npy").spec.shape == (3,)
    with pytest.raises(ValueError, match="holds one array"):
        load(tmp_path / "a.npy", label="y")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": X}, r"Expected arrays x and y .*holds \['z'\]"),
        ({"x": X, "images": X}, "holds both x and images"),
        ({"x": X, "y": Y[:-1]}, "one label for each of the 40"),
        ({"x": X, "y": Y - 1}, "the smallest of train is -1"),
        ({"x": X, "y": Y / 2}, "integer labels"),
        ({"train_x": X, "train_y": Y, "test_x": X}, "Either every split has y"),
        ({"train_x": X, "test_x": X[:, :5]}, "differ in shape or type"),
        ({"train_x": X, "test_x": X[:, 0]}, "differ in shape"),
    ],
)
def test_bad_npz_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(npz(tmp_path, **arrays))


def test_pickles_are_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        objects = np.array([Bomb()], dtype=object)
        np.save(path, objects) if path.suffix == ".npy" else np.savez(path, x=objects)
        with pytest.raises(ValueError, match="x in .* holds pickled objects"):
            load(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((100, 1000, 100), np.uint8))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"unpacks to 0.0 GiB, more than memory_limit=0.0 GiB. Raise memory_limit="):
        load(path, memory_limit=2**20)


def test_a_header_that_lies_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    (tmp_path / "lie.npy").write_bytes(header.getvalue() + b"abc")
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"abc")
    for path in (tmp_path / "lie.npy", tmp_path / "lie.npz"):
        with pytest.raises(ValueError, match=r"lie.np. is damaged.*promises 1000000000000000 bytes, it holds 3"):
            load(path)


def test_damaged_files_are_named(tmp_path):
    good = npz(tmp_path, x=X).read_bytes()
    for name, content in {
        "cut.npz": good[:200],
        "text.npz": b"hello",
        "empty.npy": b"",
        "text.npy": b"hello world",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is damaged or not a NumPy file"):
            load(tmp_path / name)
    flipped = bytearray(good)
    flipped[400] ^= 255  # inside the pixels: only the checksum of the archive can tell
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match="flipped.npz is damaged"):
        load(tmp_path / "flipped.npz")


def rows(n=30):
    return [[f"{v:.6f}" for v in RNG.randn(3)] + [str(i % 3), "ab"[i % 2]] for i in range(n)]


def write(folder, header, cells, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *cells])
    return table(folder, text.getvalue())


HEADER = ["u", "v", "w", "kind", "side"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_with_text_label(tmp_path, delimiter):
    cells = rows()
    splits = load(write(tmp_path, HEADER, cells, delimiter), label="side")
    assert splits.spec.shape == (4,)
    assert splits.spec.levels is None
    assert splits.about["class_names"] == ["a", "b"]
    assert splits.about["columns"] == ["u", "v", "w", "kind"]
    assert f"30 rows, columns separated by {delimiter!r}" in splits.about["inferred"]
    by_first = {np.float32(row[0]): row for row in cells}
    for x, y in zip(splits.train.x.numpy(), splits.train.y.tolist(), strict=True):
        row = by_first[x[0]]
        np.testing.assert_array_equal(x, np.array(row[:4], dtype=np.float32))
        assert splits.about["class_names"][y] == row[4]


def test_integer_labels_sort_as_numbers(tmp_path):
    cells = [[str(RNG.randn()), str([10, 9, 100][i % 3])] for i in range(30)]
    assert load(write(tmp_path, ["x", "k"], cells), label="k").about["class_names"] == ["9", "10", "100"]


def test_condition_columns(tmp_path):
    cells = [row[:3] for row in rows()]
    splits = load(write(tmp_path, HEADER[:3], cells), condition=["w", "u"])
    assert splits.about["columns"] == ["v"]
    assert splits.about["condition"] == ["w", "u"]
    back = splits.train.y * torch.tensor(splits.about["condition_std"]) + torch.tensor(splits.about["condition_mean"])
    by_v = {np.float32(row[1]): row for row in cells}
    expected = torch.tensor([[float(by_v[v][2]), float(by_v[v][0])] for v in splits.train.x[:, 0].numpy()])
    torch.testing.assert_close(back.float(), expected, atol=1e-6, rtol=1e-5)


def test_levels_make_a_table_of_integers(tmp_path):
    cells = [[str(RNG.randint(5)), str(RNG.randint(5))] for _ in range(30)]
    assert load(write(tmp_path, ["a", "b"], cells), levels=5).spec.levels == 5


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("a,b\n1,2\n3,x\n4,5\n", {}, r"line 3, column b: expected a number, got 'x'.*label="),
        ("a,b\n1,2\n3,\n4,5\n", {}, r"line 3, column b: expected a number, got an empty cell"),
        ("a,b\n1,2\n3,nan\n4,5\n", {}, r"line 3, column b: expected a finite number, got nan"),
        ("a,b\n1,2\n-inf,4\n4,5\n", {}, r"line 3, column a: expected a finite number, got -inf"),
        ("a,b\n1,2\n1e39,4\n4,5\n", {}, r"line 3, column a: expected a finite number, got 1e39"),
        ("a,b\n\n1,2\n\nx,4\n", {}, r"line 5, column a"),
        ("a,b\n1,2\n3\n4,5\n", {}, r"line 3: expected 2 cells, got 1"),
        ("1,2\n3,4\n5,6\n", {}, r"holds numbers only: expected a header"),
        ("a,a\n3,4\n5,6\n", {}, r"different names for all columns"),
        ("a,\n3,4\n5,6\n", {}, r"different names for all columns"),
        ("a,b\n", {}, r"Expected a header and rows in .*, got 1 lines"),
        ("", {}, r"Expected a header and rows in .*, got 0 lines"),
        ("a,b\n" + "1,7\n2,7\n3,7\n4,7\n" * 5, {}, r"same column b: leave constant columns out"),
        ("a,b\n1,2\n3,4\n5,7\n", {"label": "c"}, r"Unknown column of .* 'c'.* Valid: a, b"),
        ("a,b\n1,2\n3,4\n5,7\n", {"condition": ["c"]}, r"Unknown column of .* 'c'"),
        ("a,b\n1,2\n3,4\n5,7\n", {"condition": ["a", "b"]}, r"no columns left"),
        ("a,b\n1,2.5\n3,4\n5,2.5\n", {"label": "b"}, r"real-valued, not a label: pass condition=\['b'\]"),
        ("a,b\n1,p\n3,q\n5,r\n", {"label": "b"}, r"different value in every row"),
        ("a,b\n1,p\n3,\n5,p\n", {"label": "b"}, r"line 3, column b: expected a label, got an empty cell"),
        ("a,b\n1,2\n3,4\n5,7\n", {"label": "a", "condition": ["b"]}, r"labels or conditions, not both"),
        ("a,b\n1,2\n3,4\n5,7\n", {"condition": "b"}, r"condition as a list of names, got 'b'"),
        ("a,b\n1,2\n3,4\n5,7\n", {"condition": ["b", "b"]}, r"different names as condition"),
        ("a,b\n1,2\n3,4\n5,7\n", {"layout": "NCHW"}, r"A table takes no layout="),
        ("a,b\n1,2\n3,4\n5,7\n", {"memory_limit": 10}, r"too much for memory_limit"),
        ('a,b\n1,"2\n3,4\n', {}, r"is not a CSV file in UTF-8"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, how, message):
    with pytest.raises(ValueError, match=message):
        load(table(tmp_path, text), **how)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "set.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not a CSV file in UTF-8"):
        load(tmp_path / "set.csv")


def test_paths_and_names_that_lead_nowhere(tmp_path):
    with pytest.raises(ValueError, match="Unknown data set 'mnst'. Did you mean 'mnist'[?] Valid: .*usps"):
        load("mnst")
    with pytest.raises(ValueError, match="There is no file or folder .*gone.npz"):
        load(tmp_path / "gone.npz")
    (tmp_path / "a.mat").write_bytes(b"x")
    with pytest.raises(ValueError, match="a folder of images or a file ending in .npy, .npz, .csv, .parquet or .txt"):
        load(tmp_path / "a.mat")
