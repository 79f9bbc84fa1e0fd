"""What a continual run writes beside its matrices: transfer to tasks that were not learnt yet, and seeds."""

import json

import pytest
import yaml

from genrep import models
from genrep.contracts import DataSpec
from genrep.interface.commands.continual import continual
from genrep.interface.continual import Chosen, Measured, Source, limited, run, run_seeds, table, table_of_seeds
from genrep.training.settings import Settings

OPTIONS = {"latent": 3, "width": 8, "network": "dense"}
DIGITS = Source(("digits",), tasks=3)
BITS = Measured(("bits",), "pca", 40, 40)


def settings(steps):
    return Settings(steps=steps, batch=32, lr=3e-3, device="cpu", precision="float32", channels_last="no")


def test_models_that_share_nothing_transfer_nothing(tmp_path):
    found = run(
        Chosen("vae", "separate", OPTIONS), DIGITS, out=tmp_path, settings=settings(3), measured=BITS, progress=False
    )
    assert found["summary"]["bits"]["forward_transfer"] == 0
    assert len(found["before"]) == len(found["fresh"]) == 2
    assert "forward transfer: bits 0" in table(found)
    last = found["rows"][-1]["scores"]["bits"]
    error = sum(e["standard_error"] ** 2 for e in last) ** 0.5 / 3
    assert f"{sum(e['value'] for e in last) / 3:.4g} ± {error:.2g}" in table(found)


def test_a_model_that_learnt_digits_knows_more_of_digits(tmp_path):
    found = run_seeds(
        Chosen("vae", "finetune", OPTIONS),
        DIGITS,
        (0, 1),
        out=tmp_path,
        settings=settings(60),
        measured=BITS,
        progress=False,
    )
    one, two = (json.loads((tmp_path / f"seed{s}" / "results.json").read_text()) for s in (0, 1))
    for r in (one, two):
        b, f = ([e["bits"]["value"] for e in r[k]] for k in ("before", "fresh"))
        by_hand = sum(y - x for x, y in zip(b, f, strict=True)) / 2
        assert r["summary"]["bits"]["forward_transfer"] == pytest.approx(by_hand)
        assert by_hand > 0.1
    e = found["summary"]["bits"]["final"]
    assert e["value"] == pytest.approx((one["summary"]["bits"]["final"] + two["summary"]["bits"]["final"]) / 2)
    assert e["interval"]["low"] < e["value"] < e["interval"]["high"]
    assert "bits forward transfer: " in table_of_seeds(found)
    with pytest.raises(ValueError, match="seeds that differ"):
        run_seeds(Chosen("vae", "finetune"), DIGITS, (1, 1), out=tmp_path)


def test_too_few_steps_for_the_phases_are_refused_before_anything_is_written(tmp_path):
    chosen = Chosen("multiband_vae", "multiband", {"network": "dense", "width": 8})
    source = Source(("digits",), tasks=2)
    with pytest.raises(ValueError, match="at least 4 steps, one for each phase"):
        run(chosen, source, out=tmp_path / "run", settings=settings(3), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_does_not_know_a_newer_option_goes_on(tmp_path):
    chosen, how = Chosen("vae", "finetune", OPTIONS), {"settings": settings(2), "measured": BITS, "progress": False}
    first = run(chosen, DIGITS, out=tmp_path, **how)
    file = tmp_path / "config.yaml"
    said = yaml.safe_load(file.read_text())
    del said["source"]["held_out"]
    file.write_text(yaml.safe_dump(said))
    assert run(chosen, DIGITS, out=tmp_path, **how) == first
    with pytest.raises(ValueError, match="another held out"):
        run(chosen, DIGITS._replace(held_out=0.3), out=tmp_path, **how)


@pytest.mark.parametrize(
    ("examples", "said", "steps"),
    [
        (60, {}, 100),
        (129, {}, 200),  # two batches of 128 in a pass
        (60_000, {}, 1000),
        (60, {"batch": 20}, 300),
        (60, {"batch": 20, "accumulate": 2}, 200),
        (60, {"steps": 50}, 50),
    ],
)
def test_small_tasks_take_no_more_updates_than_their_passes(examples, said, steps):
    model = models.build("vae", DataSpec((1, 8, 8), 17), network="dense")
    assert limited(Settings(**said), 100, model, examples).steps == steps


def test_the_command_knows_how_long_small_tasks_train_and_what_is_said_wins(tmp_path, capsys):
    data = "--model vae --strategy finetune --data digits --stream dirichlet --tasks 10 --network dense --width 8"
    how = "--metrics frechet --samples 40 --examples 40 --device cpu"
    for name, more, steps in (("usual", "", 100), ("said", "--steps 3", 3)):
        continual(f"{data} {how} --out {tmp_path / name} {more}".split())
        assert f"10 tasks of {steps} updates" in capsys.readouterr().out
        held = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        log = (tmp_path / name / "tasks/009/phase0/log.jsonl").read_text().splitlines()
        assert held["settings"]["steps"] == json.loads(log[-1])["step"] == steps
