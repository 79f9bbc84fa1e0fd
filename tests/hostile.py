"""What it means that a file from a stranger is refused."""

import os
import re
import sys
from pathlib import Path

import pytest

MOST = 96 * 2**20  # bytes that a refusal may take
ON_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="pipes, devices and the peak of memory are those of Linux"
)


class Cases(dict):
    """Hostile cases by name: a function that makes one below a folder and returns the call of a user, and the error."""

    def __call__(self, match):
        def register(function):
            self[function.__name__] = (function, match)
            return function

        return register


class Payload:
    """What runs when a pickle of it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "executed"),))


def refused(folder, call, match, besides=frozenset()):
    """A clear error, no payload run, no file touched, and no memory taken that a lie asked for."""
    before, base = everything(folder), reset_peak()
    with pytest.raises((ValueError, FileNotFoundError), match=match) as raised:
        call()
    taken = peak() - base
    after = {path: state for path, state in everything(folder).items() if path not in besides}
    assert after == before
    assert taken < MOST, f"{taken / 2**20:.0f} MiB"
    assert len(str(raised.value)) < 600, "a message that a person can read"
    assert "Traceback" not in str(raised.value)


def everything(folder):
    return {p: p.lstat()[6:9:2] for p in sorted(Path(folder).rglob("*")) if not p.is_dir()} | {
        p: None for p in sorted(Path(folder).rglob("*")) if p.is_dir()
    }


def reset_peak():
    """Start the process' peak of memory anew, and return what it holds."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
