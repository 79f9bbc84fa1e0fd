"""Data from strangers: refused clearly; nothing is run, allocated or written."""

import io
import os
import pickle
import random
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from genrep import data, storage
from tests.hostile import ON_LINUX, Cases, Payload, refused

REFUSED = case = Cases()


def array_file(text, body=b"", version=(1, 0)):
    """A `.npy` file with any header."""
    text = text.encode() if isinstance(text, str) else text
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + body


def written(folder, name, content):
    (folder / name).write_bytes(content)
    return lambda: data.load(folder / name)


def archive(folder, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "x.npz", "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return lambda: data.load(folder / "x.npz")


def plain(x):
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


NUMBERS = plain(np.arange(40, dtype=np.uint8).reshape(10, 4))


@case("pickled objects")
def npy_of_objects(folder):
    array = np.empty(20, dtype=object)
    array[:] = Payload(folder)
    np.save(folder / "x.npy", array, allow_pickle=True)
    return lambda: data.load(folder / "x.npy")


@case("pickled objects")
def npz_of_objects(folder):
    labels = np.empty(10, dtype=object)
    labels[:] = Payload(folder)
    np.savez(folder / "x.npz", x=np.arange(40).reshape(10, 4), y=labels)
    return lambda: data.load(folder / "x.npz")


@case("pickled objects")
def npy_of_structured_objects(folder):
    return written(folder, "x.npy", array_file("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (9,)}\n"))


@case("damaged")
def npy_that_is_a_pickle(folder):
    return written(folder, "x.npy", pickle.dumps(Payload(folder)))


@case("header promises 10000000000000 bytes")
def npy_that_promises_terabytes(folder):
    return written(
        folder, "x.npy", array_file("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,)}\n")
    )


@case("header promises an array")
def npy_of_negative_sizes(folder):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (-10, -4)}\n"
    return written(folder, "x.npy", array_file(text, bytes(40)))


@case("header promises an array")
def npy_of_nothing_many_times(folder):
    return written(folder, "x.npy", array_file("{'descr': '<U0', 'fortran_order': False, 'shape': (10000000000,)}\n"))


@case("damaged")
def npy_header_that_is_code(folder):
    return written(folder, "x.npy", array_file(f"__import__('os').mkdir({str(folder / 'executed')!r})\n"))


@case("damaged")
def npy_header_nested_deeply(folder):
    return written(folder, "x.npy", array_file("-" * 9000 + "1\n"))


@case("(?s)damaged.*safe")
def npy_header_that_is_long(folder):
    return written(folder, "x.npy", array_file("{" + " " * 60000 + "}\n"))


@case("damaged")
def npy_truncated(folder):
    return written(folder, "x.npy", NUMBERS[:-7])


@case("unpacks to .* GiB, more than memory_limit")
def npz_bomb(folder):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000000, 100)}\n"
    packed = zlib.compressobj(9, wbits=-15)
    body = array_file(text)
    content = packed.compress(body)
    crc, block = zlib.crc32(body), bytes(10**7)
    for _ in range(3):  # a small part of what the directory claims; it is refused before that shows
        content += packed.compress(block)
    content += packed.flush()
    return lied_archive(folder, content, len(body) + 10**10, crc)


def lied_archive(folder, content, size, crc):
    """An archive with one deflated member, x, whose directory claims any size."""
    name = b"x.npy"
    sizes = struct.pack("<QQ", size, len(content))
    extra = struct.pack("<HH", 1, 16) + sizes
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 8, 0, 33, crc, 2**32 - 1, 2**32 - 1, 5, len(extra))
    central = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 45, 45, 0, 8, 0, 33, crc, 2**32 - 1, 2**32 - 1, 5, len(extra), 0, 0, 0, 0, 0
    )
    start = len(local) + 5 + len(extra) + len(content)
    directory = central + name + extra
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(directory), start, 0)
    (folder / "x.npz").write_bytes(local + name + extra + content + directory + end)
    return lambda: data.load(folder / "x.npz")


@case("damaged")
def npz_that_holds_less_than_it_says(folder):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000)}\n"
    packed = zlib.compressobj(9, wbits=-15)
    body = array_file(text)
    content = packed.compress(body + bytes(100)) + packed.flush()
    return lied_archive(folder, content, len(body) + 10**6, 0)


@case("plain names of arrays, got '../../x.npy'")
def npz_with_a_path(folder):
    return archive(folder, [("../../x.npy", NUMBERS)])


@case("plain names of arrays, got '/etc/x.npy'")
def npz_with_an_absolute_path(folder):
    return archive(folder, [("x.npy", NUMBERS), ("/etc/x.npy", NUMBERS)])


@case("different plain names")
def npz_with_a_name_twice(folder):
    with zipfile.ZipFile(folder / "x.npz", "w") as file:
        file.writestr("x.npy", NUMBERS)
        file.writestr("y.npy", NUMBERS)
    content = (folder / "x.npz").read_bytes().replace(b"y.npy", b"x.npy")
    return written(folder, "x.npz", content)


@case("more than 1000 arrays")
def npz_of_many_arrays(folder):
    return archive(folder, [(f"a{i}.npy", NUMBERS) for i in range(1002)])


@case("damaged")
def npz_that_holds_something_else(folder):
    return archive(folder, [("x.npy", pickle.dumps(Payload(folder)))])


@case("damaged")
def npz_with_broken_compression(folder):
    archive(folder, [("x.npy", NUMBERS * 20)], zipfile.ZIP_DEFLATED)
    content = bytearray((folder / "x.npz").read_bytes())
    content[35:45] = b"\xff" * 10
    return written(folder, "x.npz", bytes(content))


@case("damaged")
def npz_truncated(folder):
    archive(folder, [("x.npy", NUMBERS)])
    return written(folder, "x.npz", (folder / "x.npz").read_bytes()[:60])


def png(width, height, chunks=()):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *(chunk(*c) for c in chunks), chunk(b"IDAT", zlib.compress(bytes(100)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def pictures(folder, content, name="z.png"):
    place = folder / "pictures"
    place.mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(place / f"{i:02d}.png")
    (place / name).write_bytes(content)
    return lambda: data.load(place)


@case("too large")
def image_bomb(folder):
    return pictures(folder, png(60_000, 60_000))


@case("too large")
def image_below_the_limit_of_pillow(folder):
    return pictures(folder, png(9_000, 9_000))


@case("broken")
def image_with_a_text_bomb(folder):
    bomb = zlib.compress(bytes(10**8), 9)
    return pictures(folder, png(8, 8, [(b"zTXt", b"a\0\0" + bomb)]))


@case("broken or not an image")
def image_that_is_postscript(folder):
    code = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n({folder / 'executed'}) (w) file closefile\n"
    return pictures(folder, code.encode())


@case("broken")
def image_truncated(folder):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, "png")
    return pictures(folder, buffer.getvalue()[:60])


@case("broken or not an image")
def image_that_is_a_pickle(folder):
    return pictures(folder, pickle.dumps(Payload(folder)))


@case("All images must have one size")
def image_of_another_size(folder):
    return pictures(folder, png(80, 8))


@case("a line is longer than")
def csv_of_one_endless_line(folder):
    return written(folder, "x.csv", b"a," * 5_000_000)


@case("field larger than field limit")
def csv_with_an_endless_cell(folder):
    return written(folder, "x.csv", b"a,b\n1,2\n" + b"9" * 200_000 + b",1\n")


@case("not a CSV file in UTF-8")
def csv_of_bytes(folder):
    return written(folder, "x.csv", b"\xff\xfe\x00a,b\n1,2\n")


@case("too much for memory_limit")
def csv_larger_than_memory(folder):
    with open(folder / "x.csv", "wb") as file:
        file.truncate(2 * 2**30)  # a hole: it takes no room on the disk
    return lambda: data.load(folder / "x.csv")


@case("is a device or pipe")
def data_from_a_pipe(folder):
    os.mkfifo(folder / "x.csv")
    return lambda: data.load(folder / "x.csv")


@case("is a device or pipe")
def data_from_a_device(folder):
    (folder / "x.npy").symlink_to("/dev/zero")
    return lambda: data.load(folder / "x.npy")


@ON_LINUX
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, match = REFUSED[name]
    refused(tmp_path, make(tmp_path), match)


def test_random_damage_is_refused_or_harmless(tmp_path):
    """Flipped, lost and added bytes in files of every kind end in a ValueError or in data, never in another error."""
    chance, generator = random.Random(0), np.random.default_rng(0)
    x = generator.integers(0, 200, (20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", x=x, y=np.arange(20) % 2)
    np.savez_compressed(tmp_path / "c.npz", x=x // 50, y=np.arange(20) % 2)
    (tmp_path / "d.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(30)))
    storage.save(tmp_path / "e.safetensors", {"w": torch.randn(3, 4)}, {"step": 3, "a": {"b": [1, 2]}})
    kinds = ("png", "jpg", "bmp", "gif", "webp", "ppm")
    for kind in kinds:
        Image.fromarray(np.stack([x[0]] * 3, -1)).save(tmp_path / f"i.{kind}")
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    outcomes = []
    for _ in range(300):
        name = chance.choice(list(files))
        place = tmp_path / "x"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        (place / name).write_bytes(damaged(files[name], chance))
        if name.endswith(kinds):
            for i in range(11):
                (place / f"{i}.{name[2:]}").write_bytes(files[name])
        call = storage.load if name.endswith("safetensors") else data.load
        try:
            call(place if name.endswith(kinds) else place / name)
            outcomes.append("fine")
        except ValueError:
            outcomes.append("refused")
    assert min(outcomes.count(what) for what in ("fine", "refused")) > 30


def damaged(content, chance):
    content, kind = bytearray(content), chance.random()
    if kind < 0.2:
        return bytes(content[: chance.randrange(len(content))])
    if kind < 0.3:
        content[chance.randrange(len(content)) : 0] = chance.randbytes(9)
    for _ in range(chance.randrange(1, 6)):
        content[chance.randrange(chance.choice([len(content), min(len(content), 200)]))] = chance.choice([0, 255, 65])
    return bytes(content)
