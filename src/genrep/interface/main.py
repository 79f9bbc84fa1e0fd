"""The command `genrep`."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from genrep.interface import commands
from genrep.version import __version__

_START = """\
Start with:
  genrep train vae --data digits --out runs/first --steps 500
  genrep sample runs/first --n 64 --out samples.png
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (training failed), 2 (bad input) or 130 (Ctrl-C)."""
    try:
        with _warnings_in_one_line():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:  # help was printed
        return int(end.code or 0)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Exception) as error:
        status = _status(error)
        if status is None or os.environ.get("GENREP_DEBUG"):
            raise
        print(f"genrep: {_told(error)}", file=sys.stderr)
        return status


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"genrep {__version__}")
        return 0
    name, *rest = arguments
    commands.get(name)(["--help" if a == "-h" else a for a in rest])
    return 0


def _usage() -> str:
    width = max(map(len, commands.names())) + 2
    lines = [f"  {name:<{width}}{commands.summary(name)}" for name in commands.names()]
    return "\n".join([
        "genrep: deep generative models of every family behind one interface.\n",
        "usage: genrep COMMAND ...   (genrep COMMAND --help says more)\n",
        *lines, "", _START,
    ]).rstrip()  # fmt: skip


def _status(error: BaseException) -> int | None:
    """The exit status for errors that a message explains; None for those that are ours."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, FloatingPointError):
        return 1
    # NotImplementedError: Unsupported, which cannot be named here without importing torch
    known = isinstance(error, (ValueError, OSError)) or type(error).__name__ == "Unsupported"
    return 2 if known or _full(error) else None


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "stopped."
    if _full(error):
        return "the disk is full. Make room, or choose another --out."
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {error.filename}" if error.filename else ""
        text = f"cannot use{where}: {error.strerror}. Choose another place, with --out."
    return " ".join([text, *getattr(error, "__notes__", ())])


def _full(error: BaseException) -> bool:
    """Whether the disk is full; safetensors tells that in words of its own."""
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        if issubclass(category, UserWarning):
            print(f"genrep: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # pyright: ignore[reportAttributeAccessIssue]
        yield
