"""The command line: help, what it lists, and what it says to bad input."""

import errno
import os
import pkgutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genrep
from genrep import models, storage
from genrep.interface import arguments, commands
from genrep.interface.main import main
from genrep.training.settings import Settings

QUICK = ["--steps=3", "--latent=3", "--width=8", "--precision=float32", "--channels_last=no", "--device=cpu"]
SOURCE = str(Path(genrep.__file__).parents[1])


def environment(**more):
    return os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "COLUMNS": "100"} | more


def images(folder, *sizes, mode="L"):
    folder.mkdir()
    for i, size in enumerate(sizes):
        array = np.random.default_rng(i).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(array).convert(mode).save(folder / f"{i}.png")


def saved(path, array):
    np.save(path, array)
    return str(path)


TRAIN = "train vae --data digits --out {out}"
BAD = {
    "command": ("trian", "Did you mean 'train'?"),
    "model": ("train vea --data digits --out {out}", "Did you mean 'vae'? Valid:"),
    "no model": ("train --data digits --out {out}", "Which model?"),
    "model in config": ("train --config {here}/wrong.yaml --out {out}", "Did you mean 'vae'?"),
    "data": ("train vae --data digist --out {out}", "Did you mean 'digits'? Valid:"),
    "no data": ("train vae --out {out}", "--data is missing"),
    "no out": ("train vae --data digits", "--out is missing"),
    "option": (TRAIN + " --latnt 3", "Did you mean 'latent'?"),
    "setting": (TRAIN + " --wieght-decay 3", "Did you mean 'weight_decay'?"),
    "no value": (TRAIN + " --steps", "Argument --steps: expected one argument. See genrep train vae --help"),
    "stray word": (TRAIN + " steps", "Unrecognized arguments: steps"),
    "number": (TRAIN + " --latent many", "Expected --latent to be a whole number, got many"),
    "fraction": (TRAIN + " --steps 1.5", "Expected --steps to be a whole number, got 1.5"),
    "pair": (TRAIN + " --betas 1", "Expected --betas to be numbers separated by commas"),
    "choice": (TRAIN + " --likelihood gausian", "one of auto, logistic, bernoulli, gaussian"),
    "out of range": (TRAIN + " --steps 0", "Expected steps >= 1, got 0"),
    "model's range": (TRAIN + " --latent 0", "Expected latent >= 1, got 0"),
    "batch": (TRAIN + " --batch 5000", "batch of at most 1197"),
    "device": (TRAIN + " --device nowhere", "There is no device 'nowhere' here. There is: cpu"),
    "unconditional": ("train vae --data {here}/plain.npy --conditional --out {out}", "label"),
    "seconds": (TRAIN + " --seconds=-1", "Expected seconds > 0"),
    "out is a file": ("train vae --data digits --out {here}/plain.npy", "is a file"),
    "below a file": ("train vae --data digits --out {here}/plain.npy/run", "Choose another place"),
    "config gone": ("train --config {here}/gone.yaml --out {out}", "There is no file"),
    "config key": ("train vae --config {here}/key.yaml --out {out}", "Unknown option in"),
    "config text": ("train vae --config {here}/text.yaml --out {out}", "Expected lines 'option: value'"),
    "config broken": ("train vae --config {here}/broken.yaml --out {out}", "is not YAML"),
    "mixed sizes": ("train vae --data {here}/mixed --out {out}", "1.png"),
    "broken image": ("train vae --data {here}/broken --out {out}", "bad.png"),
    "no images": ("train vae --data {here}/empty --out {out}", "image"),
    "nan": ("train vae --data {here}/nan.npy --out {out}", "11 values are not finite"),
    "constant": ("train vae --data {here}/constant.csv --out {out}", "b"),
    "labels": ("train vae --data {here}/labels.npz --out {out}", "label"),
    "column": ("train vae --data {here}/constant.csv --label z --out {out}", "Unknown column"),
    "no run": ("sample {here}/gone", "There is no"),
    "no folder": ("resume {here}/gone --steps 3", "There is no run folder"),
    "no checkpoint": ("resume {here}/empty --steps 3", "There is no checkpoint in"),
    "no total": ("resume {here}/gone", "--steps is missing"),
    "which run": ("evaluate", "Which run?"),
    "unknown to show": ("models vea", "Did you mean 'vae'?"),
    "data to show": ("data digist", "Did you mean 'digits'?"),
    "sheet": ("data digits --out sheet.txt", "end in .png"),
    "compare what": ("compare --data digits --out {out} --steps 2", "--models is missing"),
    "compare whom": ("compare --data digits --out {out} --steps 2 --models vae,vea", "Did you mean 'vae'?"),
    "labelled": ("train joint_diffusion --data digits --labelled 2 --out {out}", "labelled in (0, 1]"),
    "too few labels": ("train joint_diffusion --data digits --labelled 0.001 --out {out}", "less than one label"),
    "shape": ("train vae --data digits --shape 2,8,8 --out {out}", "grey (1) and colour (3)"),
    "beta_1": ("train daed --data digits --beta_1 1.5 --out {out}", "Expected 0 < beta_1 < 1"),
    "joint of what": ("train joint_diffusion --data {here}/plain.npy --out {out}", "labels of at least 2 classes"),
    "split what": ("split {here}/gone", "--beta_1 is missing"),
    "adapt to what": ("adapt {here}/gone", "--data is missing"),
    "transfer to what": ("transfer {here}/gone", "--data is missing"),
    "explain nothing": ("explain {here}/gone --n 0", "--n of at least 1"),
    "predictions": ("classify {here}/gone --out here.txt", "end in .csv"),
    "decisions of none": ("decisions {here}/gone", "There is no"),
    "compare long": ("compare --data digits --out {out} --models vae", "Give --seconds or --steps"),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    images(folder / "mixed", 8, 9)
    images(folder / "broken", 8, 8)
    (folder / "broken" / "bad.png").write_bytes(b"\x89PNG nothing")
    (folder / "empty").mkdir()
    np.save(folder / "plain.npy", random.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    np.save(folder / "nan.npy", np.where(random.random((40, 3)) < 0.1, np.nan, random.random((40, 3))))
    np.savez(folder / "labels.npz", x=random.random((40, 3)), y=np.arange(39) % 2)
    (folder / "constant.csv").write_text("a,b\n" + "".join(f"{i * 0.5},1.5\n" for i in range(30)))
    for name, text in {"wrong": "model: vea", "key": "latnt: 3", "text": "hello", "broken": "a: [1"}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(case, here, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, message = BAD[case]
    before = sorted(here.rglob("*"))
    words = [word.format(out=tmp_path / "deep" / "run", here=here) for word in line.split()]
    assert main(words) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.startswith("genrep: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []
    assert sorted(here.rglob("*")) == before


def test_train_refuses_a_folder_that_holds_something(tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine")
    assert main(["train", "vae", "--data", "digits", "--out", str(tmp_path)]) == 2
    assert "choose another --out, or continue it with `genrep resume`" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_a_loss_that_is_not_finite_ends_with_1(tmp_path, capsys):
    line = ["train", "vae", "--data", "digits", "--lr", "1e30", "--warmup", "0", *QUICK, "--log_every", "1"]
    assert main([*line, "--out", str(tmp_path / "run"), "--steps", "20"]) == 1
    told = capsys.readouterr().err
    assert "Update" in told
    assert "nothing is kept" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/there"), "cannot use /there: Read-only file system."),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), "cannot use /there: Permission denied."),
    ],
)
def test_a_disk_that_takes_nothing(error, message, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise error

    monkeypatch.setattr(storage, "save", refuse)
    assert main(["train", "vae", "--data", "digits", "--out", str(tmp_path / "run"), *QUICK]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*_):
        raise TypeError("ours")

    monkeypatch.setattr(storage, "save", fail)
    with pytest.raises(TypeError, match="ours"):
        main(["train", "vae", "--data", "digits", "--out", str(tmp_path / "run"), *QUICK])


def test_debug_shows_tracebacks(monkeypatch):
    monkeypatch.setenv("GENREP_DEBUG", "1")
    with pytest.raises(ValueError, match="Unknown command"):
        main(["trian"])


def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    line = ["train", "vae", "--data", "digits", "--out", str(out), "--checkpoint_seconds", "0", *QUICK]
    assert main(line) == 0
    newest = max((out / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["sample", str(out), "--n", "2"]) == 0
    told = capsys.readouterr().err
    assert all(line.startswith("genrep: warning: ") for line in told.splitlines())
    assert newest.name in told


def test_ctrl_c_writes_a_checkpoint_and_ends_with_130(tmp_path):
    out = tmp_path / "run"
    line = ["train", "vae", "--data", "digits", "--out", str(out), *QUICK, "--steps=1000000", "--log_every=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "genrep", *line], env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not ((out / "log.jsonl").exists() and (out / "log.jsonl").read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"To go on: genrep resume {out} --steps 1000000" in told
    assert "Traceback" not in told
    steps = max(int(p.stem) for p in (out / "checkpoints").iterdir())
    assert main(["resume", str(out), "--steps", str(steps + 1)]) == 0


def test_starting_is_quick_because_little_is_imported():
    slow = ("torch", "matplotlib", "sklearn", "scipy", "jsonargparse", "rich")
    start = "import sys, genrep, genrep.interface.main as m; m.main(['--help'])"
    code = f"{start}; print([x for x in {slow} if x in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"
    heavy = ("matplotlib", "sklearn", "scipy", "torch._dynamo")
    code = f"import sys, genrep; genrep.fit; print([x for x in {heavy} if x in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_public_names():
    assert {"fit", "load", "resume", "evaluate", "compare", "data", "models", "Model"} <= set(dir(genrep))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = genrep.fitt
    pyproject = Path(SOURCE).parent / "pyproject.toml"
    if pyproject.exists():
        assert f'version = "{genrep.__version__}"' in pyproject.read_text()


def test_help(capsys):
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    told = capsys.readouterr().out
    assert all(f"{command} " in told and commands.summary(command) in told for command in commands.names())
    for command in commands.names():
        assert main([command, "--help"]) == 0
        assert "usage: genrep " + command in capsys.readouterr().out


@pytest.mark.parametrize("name", models.names())
def test_help_of_a_model_has_its_options_and_the_settings(name, capsys):
    assert main(["train", name, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    own, common = told.split("settings of training:")
    helps = arguments.helps(models.get(name))
    for option, parameter in models.options(name).items():
        assert f"--{option}" in own
        assert helps[option] in own
        assert parameter.default in (None, ()) or f"default: {arguments.shown(parameter.default)}" in own
    assert all(f"--{setting}" in common for setting in Settings.__dataclass_fields__)
    assert all(len(help_) > 3 for help_ in arguments.helps(Settings).values())
    assert main(["models", name]) == 0
    told = capsys.readouterr().out
    assert all(f"--{option}" in told for option in models.options(name))
    assert all(part in told for part in ("generative", "inference", "objective", "minimises"))


def test_models_lists_every_file_of_the_folder(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for module in pkgutil.iter_modules(models.__path__):
        assert module.name in told
        assert models.get(module.name).family in told


def test_data_shows_a_set_and_draws_its_sheet(tmp_path, capsys):
    assert main(["data"]) == 0
    assert "fashion_mnist" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert main(["data", "digits", "--out", str(sheet)]) == 0
    told = capsys.readouterr().out
    for fact in ("1 x 8 x 8", "0 to 16", "train: 1197, validation: 240, test: 360", str(sheet)):
        assert fact in told
    with Image.open(sheet) as picture:
        assert picture.size[0] > 100


def test_compare_and_evaluate_hand_over_what_was_asked(monkeypatch, tmp_path, capsys):
    seen = {}
    report = {"models": {"vae": {"training": {"steps": 7}, "metrics": {}}}}
    monkeypatch.setitem(vars(genrep), "compare", lambda *a, **k: seen.update(compare=(a, k)) or report)
    line = "compare --data digits --models vae,vae --seconds 5 --out there --seed 3 --precision float32"
    assert main(line.split()) == 0
    assert capsys.readouterr().out == "model  vae\nsteps  7\n\nreport: there/report.html\n"
    positional, named = seen["compare"]
    assert positional == (("vae", "vae"), "digits")
    assert named == {
        "seconds": 5.0, "steps": None, "out": "there", "seed": 3, "device": "auto", "precision": "float32",
        "metrics": None, "samples": 2000, "examples": 2000, "evaluations": 20, "bound_evaluations": 20,
        "features": "auto",
    }  # fmt: skip
    estimate = {
        "value": 1.5,
        "standard_error": 0.1,
        "interval": {"low": 1.3, "high": 1.7},
        "protocol": {"kind": "exact"},
    }
    measured = {"bits": estimate, "probe": {"reason": "no labels"}}
    monkeypatch.setitem(vars(genrep), "evaluate", lambda *a, **k: measured)
    assert main(["evaluate", str(tmp_path), "--metrics", "bits,probe"]) == 0
    told = capsys.readouterr().out
    assert "1.3 to 1.7" in told
    assert "no labels" in told
