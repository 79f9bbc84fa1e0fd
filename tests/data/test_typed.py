"""Parquet files and sets of the library datasets: what went in comes out, and what cannot be read is said."""

import io
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

import genrep
from genrep import data
from genrep.data import huggingface
from genrep.data.memory import free_memory

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TABLE = {
    "a": np.linspace(0, 1, 40).astype(np.float32),
    "b": np.arange(40) ** 2 / 7,
    "kind": np.array(["cat", "dog"] * 20),
    "size": np.arange(40) % 3,
}


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install genrep[parquet]")


@pytest.fixture
def write(parquet, tmp_path):
    import pyarrow

    def to(columns, name="t.parquet"):
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    return to


def test_a_table_is_what_it_was(write):
    splits = data.load(write(TABLE), label="kind")
    assert splits.about["columns"] == ["a", "b", "size"]
    assert splits.about["class_names"] == ["cat", "dog"]
    rows = torch.cat([part.x for part in splits[1:4]])
    expected = torch.from_numpy(np.stack([TABLE["a"], TABLE["b"], TABLE["size"]], 1).astype(np.float32))
    assert torch.equal(rows[rows[:, 1].argsort()], expected)
    labels = torch.cat([part.y for part in splits[1:4]])
    assert torch.equal(labels[rows[:, 1].argsort()], torch.arange(40) % 2)
    conditional = data.load(write({k: v for k, v in TABLE.items() if k != "kind"}), condition=["size"])
    assert conditional.spec.condition == 1
    assert conditional.spec.shape == (2,)
    whole = data.load(write({"p": np.arange(40) % 5, "q": np.arange(40) % 2}))
    assert whole.spec.levels == 5, "integers are levels"


@pytest.mark.parametrize(("columns", "how", "message"), [
    (TABLE, {}, "expected numbers, got such as 'cat'"),
    (TABLE, {"label": "kid"}, "Did you mean 'kind'"),
    (TABLE, {"label": "b"}, "real-valued, not a label"),
    ({"a": [1.0, None, 2.0] * 10}, {}, "row 1: expected a number, got nothing"),
    ({"a": [[1.0, 2.0]] * 20}, {}, "column a holds list.*, expected numbers or text"),
    ({"a": [float("nan")] * 20, "b": list(range(20))}, {}, "not finite"),
    ({"a": np.zeros(0), "b": np.zeros(0)}, {}, "holds no rows"),
    ({"kind": ["x", "y"] * 10}, {"label": "kind"}, "no columns left"),
    ({"a": list(range(20)), "n": [f"r{i}" for i in range(20)]}, {"label": "n"}, "different value in every row"),
])  # fmt: skip
def test_tables_that_do_not_fit_are_refused(write, columns, how, message):
    with pytest.raises(ValueError, match=message):
        data.load(write(columns), **how)


def test_a_parquet_file_is_looked_at_before_it_is_read(write, parquet, tmp_path, monkeypatch):
    """A few bytes on disk can be gigabytes of one value; the header says so, and nothing is read."""
    bomb = write({"a": np.zeros(10**6)})
    assert bomb.stat().st_size < 20_000
    monkeypatch.setattr(parquet.ParquetFile, "read", None)
    with pytest.raises(ValueError, match="more than memory_limit"):
        data.load(bomb, memory_limit=10**6)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing of the kind PAR1")
    with pytest.raises(ValueError, match="damaged or not a Parquet file"):
        data.load(tmp_path / "bad.parquet")
    (tmp_path / "cut.parquet").write_bytes(bomb.read_bytes()[:-30])
    with pytest.raises(ValueError, match="damaged or not a Parquet file"):
        data.load(tmp_path / "cut.parquet")


def test_a_long_word_that_is_repeated_is_held_once(write):
    rows = 3000
    file = write({"a": np.arange(rows) / 7, "kind": ["x" * 10**6, "y"] * (rows // 2)})
    assert file.stat().st_size < 10**6
    tracemalloc.start()
    splits = data.load(file, label="kind")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(splits.about["class_names"]) == 2
    assert peak < 50 * 2**20, "each of 1,500 would take a megabyte"


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"")
    for module, name, source in (
        ("pyarrow", "parquet", tmp_path / "t.parquet"), ("datasets", "datasets", "hf:mnist"),
    ):  # fmt: skip
        for loaded in [m for m in sys.modules if m.split(".")[0] == module]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf"pip install 'genrep\[{name}\]'"):
            data.load(source)


@pytest.fixture
def library():
    return pytest.importorskip("datasets", reason="datasets is not installed: pip install genrep[datasets]")


def pictures(n, shape=(6, 5, 3), seed=0):
    return [np.random.RandomState(seed + i).randint(0, 256, shape, np.uint8) for i in range(n)]


@pytest.fixture
def saved(library, tmp_path):
    """Thirty colour images with classes as `save_to_disk` leaves them, and the pixels."""
    x = pictures(30)
    kinds = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog", "emu"])})
    rows = {"image": [Image.fromarray(a) for a in x], "label": [i % 3 for i in range(30)]}
    library.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved", np.stack(x).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_saved_set_of_images_is_what_it_was_in_memory_and_on_access(saved, limit):
    folder, x = saved
    splits = data.load(folder, memory_limit=limit)
    assert splits.spec == genrep.DataSpec((3, 6, 5), 256, 3)
    assert splits.about["class_names"] == ["cat", "dog", "emu"]
    assert isinstance(splits.train, data.InMemory) == (limit is None)
    seen = {}
    for part in splits[1:4]:
        batch = part[torch.arange(len(part))]
        seen |= {a.numpy().tobytes(): int(y) for a, y in zip(batch.x, batch.y, strict=True)}
    assert seen == {a.tobytes(): i % 3 for i, a in enumerate(x)}
    assert data.load(folder, memory_limit=limit).about["origin"]["data"] == str(folder)
    counts = splits.about["class_counts"]
    assert sum(map(sum, counts.values())) == 30


def test_memory_holds_one_batch_of_a_set_that_is_read_on_access(saved, monkeypatch):
    folder, _ = saved
    splits = data.load(folder, memory_limit=0)
    asked = []
    decode = huggingface.folders.decode_all
    monkeypatch.setattr(huggingface.folders, "decode_all", lambda f, form: asked.append(len(f)) or decode(f, form))
    genrep.fit("vae", splits, steps=6, batch=4, precision="float32", channels_last="no", progress=False, device="cpu",
               options={"network": "dense", "width": 8, "depth": 1, "latent": 2})  # fmt: skip
    assert asked == [4] * 6


def test_splits_of_a_dictionary_are_kept_and_numbers_are_a_table(library, tmp_path):
    one = library.Dataset.from_dict({"a": list(range(40)), "b": [i / 7 for i in range(40)]})
    two = library.Dataset.from_dict({"a": list(range(9)), "b": [i / 3 for i in range(9)]})
    library.DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "s")
    splits = data.load(tmp_path / "s")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 9)
    assert torch.equal(splits.test.x[:, 0], torch.arange(9.0))


def test_sets_that_do_not_fit_are_refused(library, tmp_path, monkeypatch):
    def save(rows, name, features=None):
        library.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / name)
        return tmp_path / name

    def png(a):
        stream = io.BytesIO()
        Image.fromarray(a).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    kinds = library.Features({"image": library.Image()})
    mixed = save({"image": [png(a) for a in (*pictures(3), *pictures(1, (7, 5, 3)))]}, "mixed", kinds)
    with pytest.raises(ValueError, match="row 3 of train"):
        data.load(mixed)
    broken = save({"image": [png(pictures(1)[0])] * 3 + [{"bytes": b"no image", "path": None}]}, "broken", kinds)
    with pytest.raises(ValueError, match="row 3 is broken or not an image"):
        data.load(broken)
    with pytest.raises(ValueError, match="holds no image"):
        data.load(save({"image": [png(pictures(1)[0]), None]}, "none", kinds))
    with pytest.raises(ValueError, match="condition= may not"):
        data.load(mixed, condition=["image"])
    (tmp_path / "secret.png").write_bytes(png(pictures(1)[0])["bytes"])
    points = tmp_path / "points"
    save({"image": [png(a) for a in pictures(3)]}, "points", kinds)
    table = library.load_from_disk(str(points)).cast_column("image", library.Image(decode=False))
    monkeypatch.setattr(library, "load_from_disk", lambda _: _pointing(table, library, tmp_path / "secret.png"))
    with pytest.raises(ValueError, match="what it points to is not read"):
        data.load(points)
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read by datasets"):
        data.load(tmp_path / "empty")


def _pointing(table, library, file):
    """The set with a path in its last row, as a stranger could write it."""
    rows = [*table["image"][:2], {"bytes": None, "path": str(file)}]
    return library.Dataset.from_dict({"image": rows}, features=library.Features({"image": library.Image()}))


def test_free_memory_is_what_the_system_and_the_group_leave(tmp_path):
    assert 2**20 < free_memory() < 2**50
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 4000 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("3000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000000\n")
    assert free_memory(tmp_path) == 2_000_000
