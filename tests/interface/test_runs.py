"""A run from training to samples, continued, loaded and made again; in Python and on the command line."""

import inspect
import json

import numpy as np
import pytest
import torch
import yaml

import genrep
from genrep import models, storage
from genrep.contracts import DataSpec, Model
from genrep.interface import runs
from genrep.interface.commands.train import train_parser
from genrep.interface.main import main
from genrep.training import checkpoint
from genrep.training.settings import Settings

QUICK = {"batch": 32, "warmup": 2, "log_every": 5, "precision": "float32", "channels_last": "no", "device": "cpu"}
SMALL = {"latent": 3, "width": 8}
LINE = [f"--{k}={v}" for k, v in (QUICK | SMALL).items()]
RESERVED = {"data", "label", "condition", "layout", "out", "seconds", "config", "model", "help", "made_with"}
SAMPLING = {"n", "out", "condition", "seed", "device", "batch", "run", "help", "y"}


def weights(run):
    return checkpoint.newest(run / "checkpoints")[1].tensors


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "vae", "--data", "digits", "--out", str(out), "--steps", "12", *LINE]) == 0
    return out


def test_a_run_folder_holds_what_people_look_for(run):
    assert {p.name for p in run.iterdir() if not p.name.startswith(".")} == {
        "config.yaml",
        "log.jsonl",
        "checkpoints",
        "samples",
    }
    assert (run / "samples" / "samples.png").read_bytes().startswith(b"\x89PNG")
    said = yaml.safe_load((run / "config.yaml").read_text())
    options = {name: p.default for name, p in models.options("vae").items()}
    assert {k: said[k] for k in options} == options | SMALL
    settings = {f.name: said[f.name] for f in Settings.__dataclass_fields__.values()}
    assert None not in settings.values()
    assert said["model"] == "vae"
    assert said["data"] == "digits"
    assert said["made_with"] == {"genrep": genrep.__version__, "torch": str(torch.__version__)}


def test_its_config_makes_it_again_bit_for_bit(run, tmp_path):
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert same(weights(run), weights(tmp_path / "again"))
    assert (run / "config.yaml").read_text() == (tmp_path / "again" / "config.yaml").read_text()
    terms = [
        [json.loads(line)["terms"] for line in (p / "log.jsonl").read_text().splitlines()]
        for p in (run, tmp_path / "again")
    ]
    assert terms[0] == terms[1]


def test_yaml_and_python_give_the_same_weights(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"data": "digits", "steps": 12} | QUICK | SMALL))
    assert main(["train", "vae", "--config", str(file), "--out", str(tmp_path / "yaml")]) == 0
    model = genrep.fit("vae", "digits", steps=12, out=tmp_path / "python", options=SMALL, progress=False, **QUICK)
    assert same(weights(run), weights(tmp_path / "yaml"))
    assert same(weights(run), weights(tmp_path / "python"))
    assert same(storage.state(model), storage.state(genrep.load(run)))


def test_the_command_line_wins_over_the_config(run, tmp_path):
    arguments = ["train", "--out", str(tmp_path / "a"), "--seed", "5", "--config", str(run / "config.yaml")]
    assert main([*arguments, "--no-conditional", "--betas", "0.8,0.9", "--steps=3"]) == 0
    said = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert (said["seed"], said["steps"], said["betas"], said["latent"]) == (5, 3, [0.8, 0.9], 3)


def test_resume_equals_one_long_run(run, tmp_path):
    out = tmp_path / "short"
    base = ["train", "--config", str(run / "config.yaml"), "--out", str(out)]
    assert main([*base, "--steps", "7"]) == 0
    assert main(["resume", str(out), "--steps", "12"]) == 0
    assert same(weights(run), weights(out))
    assert yaml.safe_load((out / "config.yaml").read_text())["steps"] == 12
    with pytest.raises(ValueError, match="has 12 steps already"):
        genrep.resume(out, steps=11)


def test_load_gives_the_averaged_weights_and_save_keeps_them(run, tmp_path):
    model = genrep.load(run)
    stored = weights(run)
    averaged = {k.removeprefix("ema/"): t for k, t in stored.items() if k.startswith("ema/")}
    mine = storage.state(model)
    assert averaged
    assert all(torch.equal(mine[k], t) for k, t in averaged.items())
    assert any(not torch.equal(stored[f"model/{k}"], t) for k, t in averaged.items())
    model.save(tmp_path / "vae.safetensors")
    again = genrep.load(tmp_path / "vae.safetensors")
    assert not again.training
    assert torch.equal(model.sample(5, seed=3), again.sample(5, seed=3))
    assert again.data == model.data
    assert main(["sample", str(tmp_path / "vae.safetensors"), "--out", str(tmp_path / "x.npz")]) == 0
    assert main(["sample", str(tmp_path / "vae.safetensors")]) == 2


def test_a_model_without_a_recipe_says_how_to_get_one(tmp_path):
    built = models.build("vae", DataSpec((1, 8, 8), levels=17, classes=10), **SMALL)
    mine = Model(built.data, built.generative, built.inference, *built.objectives, domain=built.domain)
    with pytest.raises(ValueError, match="@recipe"):
        mine.save(tmp_path / "x")
    model = genrep.fit(mine, "digits", steps=2, out=tmp_path / "own", progress=False, **QUICK)
    assert model is mine
    assert "own" in (tmp_path / "own" / "config.yaml").read_text()
    with pytest.raises(ValueError, match="no recipe built"):
        genrep.load(tmp_path / "own")
    assert genrep.resume(tmp_path / "own", steps=3, model=mine, data="digits", progress=False) is mine


def test_samples_in_every_form(run, tmp_path, capsys):
    for name in ("a.png", "a.npz", "folder"):
        assert main(["sample", str(run), "--n", "5", "--out", str(tmp_path / name), "--pixels", "draw"]) == 0
        assert name in capsys.readouterr().out
    assert np.load(tmp_path / "a.npz")["x"].shape == (5, 1, 8, 8)
    assert len(list((tmp_path / "folder").glob("*.png"))) == 5
    expected = genrep.load(run).sample(5, seed=0, pixels="draw").numpy()
    assert np.array_equal(np.load(tmp_path / "a.npz")["x"], expected)
    assert main(["sample", str(run), "--out", str(tmp_path / "folder")]) == 2
    assert main(["sample", str(run), "--seed", "4"]) == 0
    assert (run / "samples" / "seed4.png").exists()


def test_labels_as_condition(tmp_path, capsys):
    out, file = tmp_path / "run", tmp_path / "x.npz"
    assert main(["train", "vae", "--data", "digits", "--conditional", "--steps", "2", "--out", str(out), *LINE]) == 0
    for condition, expected in ((["--condition", "3,1"], [3, 1, 3]), ([], [0, 1, 2])):
        assert main(["sample", str(out), "--n", "3", "--out", str(file), *condition]) == 0
        assert np.load(file)["y"].tolist() == expected
    assert main(["sample", str(out), "--condition", "12", "--out", str(file)]) == 2
    assert "Unknown class '12'" in capsys.readouterr().err


def test_a_table_with_conditions_in_its_own_units(tmp_path):
    table, random = tmp_path / "t.csv", np.random.default_rng(0)
    rows = "\n".join(",".join(f"{v:.4f}" for v in row) for row in random.normal([0, 5, 7, 100], [1, 2, 3, 10], (80, 4)))
    table.write_text("a,b,c,energy\n" + rows + "\n")
    out = tmp_path / "run"
    base = ["train", "vae", "--data", str(table), "--condition", "energy", "--conditional", "--steps", "3", *LINE]
    assert main([*base, "--out", str(out)]) == 0
    assert (out / "samples" / "samples.png").exists()
    assert yaml.safe_load((out / "config.yaml").read_text())["condition"] == ["energy"]
    assert main(["sample", str(out), "--condition", "110", "--n", "4", "--out", str(tmp_path / "x.npz")]) == 0
    splits = genrep.data.load(table, condition=["energy"])
    assert np.allclose(np.load(tmp_path / "x.npz")["y"], splits.condition([110.0]).expand(4, 1))
    assert main(["resume", str(out), "--steps", "4"]) == 0
    assert main(["sample", str(out), "--out", str(tmp_path / "y.npz")]) == 2
    assert main(["sample", str(out), "--condition", "1,2", "--out", str(tmp_path / "y.npz")]) == 2
    assert main(["sample", str(out), "--condition", "110", "--out", str(tmp_path / "pngs")]) == 2


def test_seconds_become_steps_and_both_are_refused(tmp_path):
    out = tmp_path / "run"
    assert main(["train", "vae", "--data", "digits", "--seconds", "0.3", "--out", str(out), *LINE]) == 0
    text = (out / "config.yaml").read_text()
    assert "0.3 s allow" in text
    assert weights(out)
    assert yaml.safe_load(text)["steps"] == checkpoint.newest(out / "checkpoints")[1].about["step"]
    assert main(["train", "--config", str(out / "config.yaml"), "--steps", "1", "--out", str(tmp_path / "b")]) == 0
    assert (
        main(["train", "vae", "--data", "digits", "--seconds", "1", "--steps", "2", "--out", str(tmp_path / "c")]) == 2
    )


def test_python_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"Did you mean 'batch'\?"):
        genrep.fit("vae", "digits", batches=3)
    with pytest.raises(ValueError, match="latent is an option of vae"):
        genrep.fit("vae", "digits", latent=3)
    with pytest.raises(ValueError, match=r"Did you mean 'latent'\?"):
        genrep.fit("vae", "digits", options={"latnt": 3})


def test_arrays_train_too():
    x = torch.randint(0, 256, (40, 8, 8), dtype=torch.uint8)
    assert genrep.fit("vae", x, steps=2, options=SMALL, progress=False, **QUICK).data.shape == (1, 8, 8)


@pytest.mark.parametrize("name", models.names())
def test_options_and_settings_never_clash(name):
    own = models.options(name).keys()
    assert not own & (set(Settings.__dataclass_fields__) | RESERVED)
    model = models.example(name)
    how = inspect.signature(type(model.generative).forward).parameters
    assert not {k for k, p in how.items() if p.kind is p.KEYWORD_ONLY and k != "y"} & SAMPLING
    assert own <= train_parser(name).types.keys()


def test_stages_are_trained_in_order_each_in_its_folder(tmp_path):
    two = models.build("vae", DataSpec((1, 8, 8), levels=17, classes=10), **SMALL)
    two.objectives.extend(models.build("vae", two.data, **SMALL).objectives)
    before = {k: t.clone() for k, t in storage.state(two).items()}
    runs.train(two, runs.read("digits"), steps=3, out=tmp_path / "two", progress=False, samples=0, **QUICK)
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"config.yaml", "stage0", "stage1"}
    first = weights(tmp_path / "two" / "stage0")
    last = weights(tmp_path / "two" / "stage1")
    name = next(k for k in first if k.startswith("ema/"))
    assert not torch.equal(first[name], last[name])
    genrep.resume(tmp_path / "two", steps=5, model=two, progress=False, samples=0)
    steps = [checkpoint.newest(tmp_path / "two" / f"stage{i}" / "checkpoints")[1].about["step"] for i in (0, 1)]
    assert steps == [3, 5]
    assert before.keys() == storage.state(two).keys()


def test_evaluating_a_distance_attaches_its_null_check(tmp_path):
    out = tmp_path / "run"
    genrep.fit("vae", "digits", steps=2, out=out, options=SMALL, progress=False, samples=0)
    found = genrep.evaluate(out, metrics=["fd"], samples=360, features="pca:4")
    low, high = found["frechet_null"]["interval"]["low"], found["frechet_null"]["interval"]["high"]
    assert low < 0 < high  # real halves: the model is not looked at
    assert found["frechet"]["interval"]["low"] > high
