"""A run survives being killed, a full disk, and a second run in its folder."""

import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genrep import storage
from genrep.training import checkpoint
from genrep.training.loop import fit
from tests.training.test_fit import QUICK, assert_same_run, digits, small_vae, wait_for

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals, limits and locks are those of POSIX")
SETTINGS = dataclasses.replace(QUICK, checkpoint_seconds=0.02, horizon=4000, log_every=7, validate_every=11)


def training(folder, settings=SETTINGS, before="", **popen):
    """The same run in a process of its own; it goes on from a checkpoint if there is one."""
    script = f"""
import sys, pathlib; sys.path[:0] = {sys.path!r}
{before}
from tests.training.test_fit import digits, small_vae, fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode
folder = pathlib.Path({str(folder)!r})
resume = any(path.stem.isdigit() for path in (folder / "checkpoints").glob("*.safetensors"))
print("started", flush=True)
model = small_vae(5 if resume else 0)
fit(model, digits(), {settings!r}, folder=folder, validation=digits(), mode=Mode(), resume=resume)
"""
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, **popen)


def steps_of(folder):
    return [int(path.stem) for path in sorted((folder / "checkpoints").glob("*.safetensors"))]


@POSIX
@pytest.mark.slow
def test_twenty_kills_at_random_times_change_nothing(tmp_path):
    """SIGKILL anywhere, in a checkpoint and in its first moments alike: the end is bitwise that of an undisturbed run.

    Every third kill falls in the first moments, so that some hit the log and the first checkpoint of a resumed run.
    """
    chance = random.Random(0)
    kills = 20
    for kill in range(kills):
        before = max(steps_of(tmp_path / "cut"), default=0)
        process = training(tmp_path / "cut", dataclasses.replace(SETTINGS, steps=10**6), stdout=subprocess.PIPE)
        assert process.stdout.readline() == "started\n", process.stderr.read()
        if kill % 3:
            wait_for(lambda before=before: max(steps_of(tmp_path / "cut"), default=0) > before)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
    done = checkpoint.newest(tmp_path / "cut" / "checkpoints")[1].about["step"]
    assert done >= kills * 2 // 3, "each run that was waited for went further"
    last = dataclasses.replace(SETTINGS, steps=done + 9)
    fit(small_vae(3), digits(), last, folder=tmp_path / "cut", validation=digits(), resume=True)
    fit(small_vae(), digits(), last, folder=tmp_path / "whole", validation=digits())
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob(".*-*")), "what a kill left half-written is swept"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@POSIX
@pytest.mark.parametrize("moment", ["checkpoint", "log"])
def test_full_disk_keeps_the_last_checkpoint(small_disk, tmp_path, moment):
    """Training goes on until there is no room: an OSError with a clear message, and what was written is whole."""
    run = small_disk / "run"
    fit(small_vae(), digits(), QUICK, folder=run)
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    left = 0 if moment == "log" else 20  # blocks: too few for a checkpoint
    (small_disk / "filler").write_bytes(bytes((os.statvfs(small_disk).f_bavail - left) * 4096))
    longer = dataclasses.replace(QUICK, steps=24, horizon=12)
    with pytest.raises(OSError, match="No space left on device") as raised:
        fit(small_vae(3), digits(), longer, folder=run, resume=True)
    assert raised.value.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    (small_disk / "filler").unlink()
    fit(small_vae(3), digits(), longer, folder=run, resume=True)
    fit(small_vae(), digits(), longer, folder=tmp_path / "whole")
    assert_same_run(run, tmp_path / "whole")


@POSIX
@pytest.mark.slow
def test_checkpoint_that_cannot_be_written_keeps_the_one_before(tmp_path):
    """The system's own error, by its limit on the size of a file, where no disk can be filled."""
    fit(small_vae(), digits(), QUICK, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    process = training(tmp_path, dataclasses.replace(QUICK, steps=24, horizon=12), limit)
    assert "OSError: [Errno 27] Cannot write: " in process.communicate(timeout=60)[1]
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before


# ---- two runs in one folder ----------------------------------------------------------------------------------------


@POSIX
@pytest.mark.slow
def test_of_two_runs_that_start_at_once_one_wins(tmp_path):
    processes = [training(tmp_path / "run", dataclasses.replace(SETTINGS, steps=10**6)) for _ in range(2)]
    wait_for(lambda: any(process.poll() is not None for process in processes))
    (loser,) = [process for process in processes if process.poll() is not None]
    (winner,) = [process for process in processes if process is not loser]
    assert f"ValueError: Another run (process {winner.pid}) is writing to" in loser.communicate()[1]
    seen = len(steps_of(tmp_path / "run"))
    wait_for(lambda: seen or steps_of(tmp_path / "run"))
    assert winner.poll() is None, "the winner trains on"
    winner.kill()
    winner.communicate()
    done = checkpoint.newest(tmp_path / "run" / "checkpoints")[1].about["step"]
    last = dataclasses.replace(SETTINGS, steps=done + 3)
    fit(
        small_vae(3), digits(), last, folder=tmp_path / "run", validation=digits(), resume=True
    )  # the lock died with it


def test_lock_is_released_and_may_be_taken_again_inside(tmp_path):
    with storage.locked(tmp_path), storage.locked(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())
    with storage.locked(tmp_path):
        pass
    with pytest.raises(RuntimeError), storage.locked(tmp_path):
        raise RuntimeError
    with storage.locked(tmp_path):
        pass


@POSIX
def test_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fit(small_vae(), digits(), QUICK, folder=Path(tmp_path / "file" / "run"))
