"""List the models, or show one of them."""

from __future__ import annotations

import inspect

from genrep import models as registry
from genrep.interface import show
from genrep.interface.arguments import Parser
from genrep.naming import choose


def models(argv: list[str]) -> None:
    """List the models with family, capabilities and reference; with a NAME: its parts, objectives and options."""
    parser = Parser("models [NAME]", inspect.getdoc(models) or "")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    parser.read(argv)
    if name is None:
        show.models(show.console())
    else:
        show.model(choose(name, registry.names(), "model"), show.console())
