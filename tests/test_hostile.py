"""Weights, checkpoints and options from strangers: refused clearly; nothing is run, allocated or written."""

import json
import os
import pickle
import struct

import pytest
import torch

from genrep import models, storage
from genrep.contracts import DataSpec
from genrep.data.batches import InMemory
from genrep.interface import config
from genrep.models import build
from genrep.training import checkpoint
from genrep.training.loop import fit, restored
from genrep.training.settings import Settings
from genrep.training.trainer import Mode
from tests.hostile import ON_LINUX, Cases, Payload, refused

SPEC = DataSpec((1, 8, 8), levels=17)
SETTINGS = Settings(steps=3, batch=8, log_every=2, device="cpu")
REFUSED = case = Cases()


# ---- weights -------------------------------------------------------------------------------------------------------


def weights(folder, header, body=b"", length=None):
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return lambda: storage.load(path)


def tensor(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def header(about, **tensors):
    return {"__metadata__": {"genrep": about}, **tensors}


@case("damaged or not a file of genrep")
def pickle_renamed(folder):
    (folder / "x.safetensors").write_bytes(pickle.dumps(Payload(folder)))
    return lambda: storage.load(folder / "x.safetensors")


@case("damaged or not a file of genrep")
def torch_pickle_renamed(folder):
    torch.save({"w": Payload(folder)}, folder / "x.safetensors")
    return lambda: storage.load(folder / "x.safetensors")


@case("(?i)damaged.*header")
def header_of_ten_gigabytes(folder):
    return weights(folder, {}, length=10 * 2**30)


@case("(?i)damaged.*header")
def header_longer_than_the_file(folder):
    return weights(folder, header("{}"), length=10**6)


@case("(?i)damaged.*offset")
def overlapping_tensors(folder):
    return weights(folder, header("{}", a=tensor(0, 4), b=tensor(2, 6)), bytes(6))


@case("(?i)damaged.*(offset|incomplete)")
def tensor_beyond_the_file(folder):
    return weights(folder, header("{}", a=tensor(0, 2**40, (2**38,))), bytes(16))


@case("(?i)damaged.*offset")
def hole_between_tensors(folder):
    return weights(folder, header("{}", a=tensor(0, 4), b=tensor(8, 12)), bytes(12))


@case("damaged")
def shape_that_does_not_fit_its_bytes(folder):
    return weights(folder, header("{}", a=tensor(0, 4, (1000, 1000))), bytes(4))


@case("damaged")
def shape_that_overflows(folder):
    return weights(folder, header("{}", a=tensor(0, 4, (2**62, 4, 2**62))), bytes(4))


@case("damaged")
def negative_shape(folder):
    return weights(folder, header("{}", a=tensor(0, 4, (-1, -1))), bytes(4))


@case("damaged")
def unknown_type(folder):
    return weights(folder, header("{}", a=tensor(0, 4, dtype="PICKLE")), bytes(4))


@case("damaged")
def header_nested_deeply(folder):
    return weights(folder, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


@case("damaged")
def header_that_is_not_text(folder):
    return weights(folder, b"\xff\xfe{}")


@case("damaged")
def truncated_file(folder):
    storage.save(folder / "x.safetensors", {"w": torch.ones(1000)}, {})
    (folder / "x.safetensors").write_bytes((folder / "x.safetensors").read_bytes()[:-100])
    return lambda: storage.load(folder / "x.safetensors")


@case("damaged")
def empty_file(folder):
    (folder / "x.safetensors").touch()
    return lambda: storage.load(folder / "x.safetensors")


@case("genrep did not write it")
def file_of_another_program(folder):
    return weights(folder, {"a": tensor(0, 4)}, bytes(4))


@case("damaged")
def about_that_is_not_json(folder):
    return weights(folder, header("import os"))


@case("list where names should be")
def about_that_is_a_list(folder):
    return weights(folder, header("[1, 2]"))


@case("damaged")
def about_nested_deeply(folder):
    return weights(folder, header("[" * 100_000 + "]" * 100_000))


@case("damaged")
def about_with_an_endless_number(folder):
    return weights(folder, header('{"step": ' + "9" * 10_000 + "}"))


@case("holds NaN")
def about_with_nan(folder):
    return weights(folder, header('{"best": NaN}'))


@case("its header holds 1677.* characters")
def about_that_is_enormous(folder):
    return weights(folder, header(json.dumps({"x": "y" * 2**24})))


@case("There is no file")
def folder_instead_of_a_file(folder):
    (folder / "x.safetensors").mkdir()
    return lambda: storage.load(folder / "x.safetensors")


@case("There is no file")
def pipe_instead_of_a_file(folder):
    os.mkfifo(folder / "x.safetensors")
    return lambda: storage.load(folder / "x.safetensors")


def restoring(folder, change):
    model = build("vae", SPEC, latent=2, width=4)
    before = {k: t.clone() for k, t in storage.state(model).items()}
    tensors = {k: t.detach().clone() for k, t in before.items()}
    change(tensors, next(iter(tensors)))

    def call():
        try:
            storage.restore(model, tensors, "x.safetensors")
        finally:
            assert all(torch.equal(t, before[k]) for k, t in storage.state(model).items()), "changed before it checked"

    return call


@case(r"x.safetensors: expected .* to be \(.*got \(3,\)")
def weights_of_the_wrong_shape(folder):
    return restoring(folder, lambda tensors, first: tensors.update({first: torch.zeros(3)}))


@case("got .* torch.float16")
def weights_of_the_wrong_type(folder):
    return restoring(folder, lambda tensors, first: tensors.update({first: tensors[first].half()}))


@case("x.safetensors: .* is not finite")
def weights_that_are_nan(folder):
    return restoring(folder, lambda tensors, first: tensors[first].view(-1)[0].fill_(float("nan")))


@case("missing")
def weights_that_are_missing(folder):
    return restoring(folder, lambda tensors, first: tensors.pop(first))


@case("unexpected .*__class__")
def weights_of_another_name(folder):
    return restoring(folder, lambda tensors, first: tensors.update({"__class__.x": torch.zeros(1)}))


@case("is not YAML: could not determine a constructor")
def config_that_names_a_python_object(folder):
    (folder / "config.yaml").write_text(f"model: !!python/object/apply:os.mkdir ['{folder / 'executed'}']\n")
    return lambda: config.read(folder / "config.yaml")


@ON_LINUX
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, match = REFUSED[name]
    refused(tmp_path, make(tmp_path), match)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def examples():
    return InMemory(torch.arange(32 * 64).view(32, 1, 8, 8).remainder(17).to(torch.uint8), None, SPEC)


def small():
    return build("vae", SPEC, latent=2, width=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three updates."""
    folder = tmp_path_factory.mktemp("run")
    fit(small(), examples(), SETTINGS, folder=folder, mode=Mode())
    return checkpoint.newest(folder / "checkpoints")[1]


def checkpointed(folder, stored, change, *, resume, step=3):
    """A call on a run whose only checkpoint was changed."""
    tensors, about = {k: t.clone() for k, t in stored.tensors.items()}, json.loads(json.dumps(stored.about))
    change(tensors, about)
    storage.save(folder / "checkpoints" / f"{step:08d}.safetensors", tensors, about)
    if resume:
        longer = Settings(**{**SETTINGS.__dict__, "steps": 5})
        return lambda: fit(small(), examples(), longer, folder=folder, mode=Mode(), resume=True)
    return lambda: restored(folder, lambda recipe, spec: build(recipe.name, DataSpec(**spec), **recipe.options))


def set_in(*path, to):
    def change(tensors, about):
        place = about
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def moments(tensors, suffix):
    return next(k for k in tensors if k.startswith("optimiser/") and k.endswith(suffix))


CHANGES = {
    "recipe with a path": (set_in("recipe", "name", to="../../vae"), "Unknown model '../../vae'"),
    "recipe of a module": (set_in("recipe", "name", to="os"), "Unknown model 'os'"),
    "recipe without a name": (set_in("recipe", to=["vae"]), "lacks recipe"),
    "recipe with more": (set_in("recipe", "code", to="print()"), "does not name the recipe"),
    "name that is no text": (set_in("recipe", "name", to={"a": 1}), "does not name the recipe"),
    "options that are a list": (set_in("recipe", "options", to=[1]), "expected the options"),
    "option as text": (set_in("recipe", "options", "latent", to="2"), "Expected latent of vae to be int, got '2'"),
    "option that is true": (set_in("recipe", "options", "latent", to=True), "Expected latent of vae to be int"),
    "option as an object": (set_in("recipe", "options", "beta", to={"x": 1}), "Expected beta of vae to be float"),
    "option of another set": (set_in("recipe", "options", "network", to=["conv"]), "Unknown network of vae"),
    "unknown option": (set_in("recipe", "options", "__init__", to=1), "Unknown option of vae"),
    "negative shape": (set_in("data", "shape", to=[-1, -8, -8]), "expected a shape"),
    "huge shape": (set_in("data", "shape", to=[3, 10**6, 10**6]), "expected a shape of at most 16777216 values"),
    "shape of a million sizes": (set_in("data", "shape", to=[1] * 10**6), "expected a shape"),
    "real shape": (set_in("data", "shape", to=[1.0, 8, 8]), "expected a shape"),
    "shape as text": (set_in("data", "shape", to="188"), "expected a shape"),
    "a billion classes": (set_in("data", "classes", to=10**9), "expected levels, classes and condition"),
    "one level": (set_in("data", "levels", to=1), "expected levels"),
    "means that do not fit": (set_in("data", "mean", to=[0.0] * 7), "expected a finite mean"),
    "no spread": (set_in("data", "std", to=[0.0]), "expected std > 0"),
    "data with more": (set_in("data", "__class__", to="x"), "does not describe the data"),
    "a weight that is missing": (lambda t, a: t.pop(next(k for k in t if k.startswith("model/"))), "missing"),
    "an average that is missing": (lambda t, a: t.pop(next(k for k in t if k.startswith("ema/"))), "missing"),
}
RESUMED = {
    "negative step": (set_in("step", to=-3), "named for another step"),
    "another step": (set_in("step", to=4), "named for another step"),
    "step as text": (set_in("step", to="3"), "lacks step"),
    "no header": (lambda tensors, about: about.clear(), "lacks step, stage"),
    "ranks of another run": (set_in("ranks", to=64), "written by 64 processes"),
    "another stage": (set_in("stage", to=7), "belongs to stage 7"),
    "window that lies": (set_in("window", "rate", to=[0] * 50), "unfinished line of the log"),
    "tensors of no use": (lambda t, a: t.update({"extra/x": torch.zeros(9)}), "unexpected .*extra/x"),
    "moments of the wrong shape": (
        lambda t, a: t.update({moments(t, "exp_avg"): torch.zeros(1)}), r"optimiser of .*: expected exp_avg to be"
    ),
    "moments that are nan": (lambda t, a: t[moments(t, "exp_avg_sq")].fill_(float("inf")), "exp_avg_sq is not finite"),
    "moments of other parameters": (
        lambda t, a: t.update({"optimiser/model/x/exp_avg": torch.zeros(1)}), "knows other parameters"
    ),
    "average that is missing": (lambda t, a: t.pop(next(k for k in t if k.startswith("ema/"))), "missing"),
    "best weights of another model": (lambda t, a: t.update({"best/x": torch.zeros(1)}), "unexpected .*x"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changed_run_is_not_loaded(tmp_path, run, name):
    change, match = CHANGES[name]
    refused(tmp_path, checkpointed(tmp_path, run, change, resume=False), match)


@pytest.mark.parametrize("name", RESUMED)
def test_changed_run_is_not_resumed(tmp_path, run, name):
    change, match = RESUMED[name]
    call = checkpointed(tmp_path, run, change, resume=True)
    refused(tmp_path, call, match)


def test_unchanged_run_is_loaded_and_resumed(tmp_path, run):
    """The two tests above refuse for the reason that they plant."""
    model, _ = checkpointed(tmp_path, run, lambda t, a: None, resume=False)()
    assert model.sample(1).shape == (1, 1, 8, 8)
    assert checkpointed(tmp_path, run, lambda t, a: None, resume=True)().steps == 5


@pytest.mark.parametrize("target", ["elsewhere.safetensors", "nowhere"])
def test_checkpoint_that_is_a_link_is_refused(tmp_path, run, target):
    storage.save(tmp_path / "elsewhere.safetensors", run.tensors, run.about)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000003.safetensors").symlink_to(tmp_path / target)
    refused(tmp_path, lambda: checkpoint.newest(tmp_path / "checkpoints"), "is a link, not a checkpoint")


def test_links_in_a_run_folder_are_not_written_through(tmp_path, run):
    """A stranger's run folder cannot make resuming it write elsewhere."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "precious")
    call = checkpointed(tmp_path, run, lambda t, a: None, resume=True)
    refused(tmp_path, call, r"\.lock is a link")
    (tmp_path / ".lock").unlink()
    call()
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "log.jsonl").is_symlink()


# ---- what is not a file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("vae", {"latent": "2"}, "latent of vae to be int, got '2'"),
        ("vae", {"latent": 2.5}, "latent of vae to be int"),
        ("vae", {"beta": float("nan")}, "beta of vae to be float, got nan"),
        ("vae", {"conditional": 1}, "conditional of vae to be bool"),
        ("ddpm", {"multipliers": ("a",)}, "multipliers of ddpm to be tuple"),
        ("ddpm", {"multipliers": 3}, "multipliers of ddpm to be tuple"),
        ("../vae", {}, "Unknown model"),
        ("__init__", {}, "Unknown model"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(name, options, match):
    with pytest.raises(ValueError, match=match):
        models.build(name, SPEC, **options)


@pytest.mark.parametrize("given", [{"steps": "9"}, {"batch": 1.5}, {"lr": [1]}, {"device": 3}, {"compile": "no"}])
def test_settings_of_the_wrong_kind_are_refused(given):
    with pytest.raises(ValueError, match=f"Expected {next(iter(given))} to be"):
        Settings(**given)
