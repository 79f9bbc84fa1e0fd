"""genrep: deep generative models of every family behind one interface.

>>> import genrep
>>> model = genrep.fit("vae", "digits", steps=2, progress=False)
>>> model.sample(4, seed=0).shape
torch.Size([4, 1, 8, 8])
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from genrep.version import __version__

__all__ = ["__version__"]  # the names below come when they are first used, so that the import is quick

_FUNCTIONS = {
    "fit": "genrep.interface.runs",
    "load": "genrep.interface.runs",
    "resume": "genrep.interface.runs",
    "save_samples": "genrep.interface.samples",
    "evaluate": "genrep.interface.evaluate",
    "compare": "genrep.interface.compare",
    "reproduce": "genrep.interface.reproduce",
    "check_bijection": "genrep.distributions.flows.check",
    "Model": "genrep.contracts",
    "DataSpec": "genrep.contracts",
    "Settings": "genrep.training.settings",
}
_MODULES = ("data", "models")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_MODULES])
