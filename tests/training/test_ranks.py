"""Several processes train as one does: two real processes, started by torchrun, on the CPU."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from genrep import storage
from genrep.training import checkpoint, loop
from tests.training import together
from tests.training.test_fit import assert_same_run, fit, normal_data, state_and_log, wait_for

ROOT = Path(__file__).parents[2]


def torchrun(job, folder, processes=2):
    """Two processes as a user starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])
    }  # fmt: skip
    return subprocess.Popen(
        [*command, together.__file__, job, str(folder)],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of everything that two processes did."""
    for _ in range(2):
        folder = tmp_path_factory.mktemp("two")
        with storage.locked(folder / "taken"):
            process = torchrun("all", folder)
            _, errors = process.communicate(timeout=600)
        if "terminate called without an active exception" not in errors:
            break  # else gloo's threads outlived their process, when its work was done: seen once in fifteen runs
    assert process.returncode == 0, errors[-6000:]
    return folder


@pytest.mark.parametrize("name", ["vae", "ddpm", "duel", "dcgan", "sometimes"])
def test_two_processes_equal_one_that_accumulates_two_batches(two, tmp_path, name):
    """Weights, averages, optimiser and log, to float64 accuracy.

    The dcgan is the one whose critic has no spectral norm: that makes a power iteration in every forward pass, of which
    one process makes twice as many.
    """
    with together.in_double():
        together.train(name, tmp_path / name, accumulate=2)
    assert_close(two / name, tmp_path / name)


def test_two_processes_that_accumulate_equal_one(two, tmp_path):
    with together.in_double():
        together.train("duel", tmp_path / "four", accumulate=4)
    assert_close(two / "four", tmp_path / "four")


@pytest.mark.parametrize(("sharded", "plain"), [
    ("vae-sharded", "vae"), ("ddpm-sharded", "ddpm"), ("ddpm-sharded-two", "ddpm-two"),
])  # fmt: skip
def test_sharded_training_equals_averaged_gradients(two, sharded, plain):
    """FSDP2 against DDP: weights, averages, optimiser and log, with one batch an update and with two."""
    assert_close(two / sharded, two / plain)


def test_a_sharded_run_resumes_exactly_and_its_files_are_those_of_any_run(two):
    """Each rank sampled from the model that training left; so can anyone from the files, in one process."""
    assert_same_run(two / "ddpm-sharded", two / "ddpm-sharded-parts")
    with together.in_double():
        model, _ = loop.restored(two / "ddpm-sharded", lambda *_: together.MAKE["ddpm"]())
        samples = model.sample(4, seed=0)
    for rank in range(2):
        assert torch.equal(samples, storage.load(two / f"ddpm-samples-{rank}.safetensors").tensors["x"])


def test_sharding_that_does_not_apply_is_refused(two):
    told = json.loads((two / "told-1.json").read_text())
    assert "trained alone" in told["sharded duel {}"]
    assert "leave those out" in told["sharded vae {'channels_last': 'yes'}"]
    assert "leave those out" in told["sharded vae {'snapshot_every': 2}"]
    with pytest.raises(ValueError, match="start several"):
        together.train("vae", None, sharded=True)


def assert_close(a, b):
    (one, log_one), (other, log_other) = state_and_log(a), state_and_log(b)
    weights = {k: t for k, t in one.tensors.items() if not k.startswith("model/objectives.0.") or "critic" in k}
    assert weights
    for name, t in weights.items():
        torch.testing.assert_close(t, other.tensors[name], rtol=1e-11, atol=1e-13, msg=name)
    assert [list(flat(r)) for r in log_one] == [list(flat(r)) for r in log_other]
    for r, s in zip(log_one, log_other, strict=True):
        assert flat(r) == pytest.approx(flat(s), rel=1e-11, abs=1e-13)


def flat(record):
    return {"step": record["step"], **record.get("terms", {}), "validation": record.get("validation", 0.0)}


@pytest.mark.parametrize("name", ["vae", "duel", "sometimes", "norm"])
def test_resume_is_exact_on_every_rank(two, name):
    """With what belongs to each rank."""
    assert_same_run(two / name, two / f"{name}-parts")
    own = sorted(p.name for p in (two / name / "checkpoints").glob("*.rank-*"))
    steps = [p.stem for p in sorted((two / name / "checkpoints").glob("*.safetensors")) if p.stem.isdigit()]
    expected = [f"{steps[-1]}.rank-{r}.safetensors" for r in range(2)] if name != "vae" else []
    assert own[-2:] == expected
    for file in expected:
        whole, parts = (storage.load(two / run / "checkpoints" / file).tensors for run in (name, f"{name}-parts"))
        assert whole.keys() == parts.keys()
        for key, t in whole.items():
            assert torch.equal(t, parts[key]), key


def test_state_belongs_to_its_rank_and_statistics_are_averaged(two):
    """Each rank saw its own half; together they saw all. The checkpoint holds the mean of the batch statistics."""
    sums = [own_buffers(two / "sometimes", r)["model/objectives.0.sum"] for r in range(2)]
    assert not torch.equal(*sums)
    _, main = checkpoint.newest(two / "norm" / "checkpoints")
    for kind in ("running_mean", "running_var"):
        key = f"model/generative.norm.{kind}"
        own = [own_buffers(two / "norm", r)[key] for r in range(2)]
        assert not torch.equal(*own)
        torch.testing.assert_close(main.tensors[key], (own[0] + own[1]) / 2)


def own_buffers(run, rank):
    return storage.load(sorted((run / "checkpoints").glob(f"*.rank-{rank}.safetensors"))[-1]).tensors


def test_all_ranks_agree(two):
    """On a loss that is infinite on one of them, on a folder that another run holds, on the arithmetic."""
    told = [json.loads((two / f"told-{r}.json").read_text()) for r in range(2)]
    assert told[0]["breaks"] == told[1]["breaks"]
    assert "FloatingPointError: Update 0: nll became inf" in told[0]["breaks"]
    assert f"Another run (process {os.getpid()}) is writing to" in told[0]["taken"]
    assert "Rank 0 could not take the folder" in told[1]["taken"]
    assert told[0]["mode"] == told[1]["mode"]


def test_another_number_of_processes_is_refused(two):
    with pytest.raises(ValueError, match="was written by 2 processes: continue it with as many, not 1"):
        fit(together.MAKE["duel"](), normal_data(), together.SETTINGS, folder=two / "duel", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_with_a_message(tmp_path, rank):
    process = torchrun("endless", tmp_path)
    wait_for(lambda: any(p.stem.isdigit() for p in (tmp_path / "checkpoints").glob("*.safetensors")))
    workers = sorted(children(process.pid), key=lambda pid: environment(pid)["RANK"])
    assert [environment(pid)["RANK"] for pid in workers] == ["0", "1"]
    start = time.monotonic()
    os.kill(workers[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 45
    assert process.returncode != 0
    assert f"Rank {1 - rank} of 2 lost another process of this run" in errors, errors[-6000:]
    assert all(not Path(f"/proc/{pid}").exists() for pid in workers)
    _, stored = checkpoint.newest(tmp_path / "checkpoints")
    assert stored.about["step"] > 0
    resumed = torchrun("endless", tmp_path / "other")  # and the machine is free for the next run
    wait_for(lambda: any((tmp_path / "other" / "checkpoints").glob("*.safetensors")))
    resumed.terminate()
    resumed.communicate(timeout=60)


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid):
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_ranks_at_the_same_update(tmp_path, number):
    process = torchrun("endless", tmp_path)
    log = tmp_path / "log.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert "lost another process" not in errors
    _, stored = checkpoint.newest(tmp_path / "checkpoints")
    step = stored.about["step"]
    assert [storage.load(f).about["step"] for f in sorted((tmp_path / "checkpoints").glob(f"{step:08d}.rank-*"))] == [
        step,
        step,
    ]
    assert dataclasses.asdict(together.SETTINGS)["batch"] * step == own_buffers(tmp_path, 1)["model/objectives.0.seen"]
