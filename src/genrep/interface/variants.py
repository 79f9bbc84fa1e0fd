"""What a comparison compares: models by name, or variants of them with a label and options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from genrep import models as registry
from genrep.contracts import DataSpec, Model, seeded
from genrep.naming import choose, file_name

_OWN = ("label", "model", "published")  # keys of a variant that are no options of its model


class Variant(NamedTuple):
    """One row of a comparison."""

    label: str
    model: str
    options: dict[str, Any]
    published: str = ""  # what a paper reports for it, with protocol, to stand beside the measured number

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return file_name(self.label)

    def build(self, spec: DataSpec, seed: int = 0) -> Model:
        """The model, for data of that kind; a ValueError for options that do not fit."""
        with seeded(seed):
            return registry.build(self.model, spec, **self.options)


def variants(said: Sequence[str | Mapping[str, Any] | Variant]) -> list[Variant]:
    """Variants from names of models and from mappings {label, model, published, and options of the model}.

    A ValueError for an unknown model or option, for a label that gives no folder, and for one label that means two
    things; a row that is said twice counts once.

    >>> variants(["vae", {"label": "wide", "model": "vae", "width": 512}])[1]
    Variant(label='wide', model='vae', options={'width': 512}, published='')
    """
    if isinstance(said, (str, Mapping)):
        raise ValueError(f"Expected a list of models, got {said!r:.60}.")
    found: dict[str, Variant] = {}
    for row in map(_variant, said):
        earlier = found.setdefault(row.folder.lower(), row)  # some file systems take A for a
        if earlier != row:
            raise ValueError(f"Expected labels that differ, got {earlier.label!r} and {row.label!r}: change one.")
    if not found:
        raise ValueError("Expected at least one model.")
    return list(found.values())


def sized(said: Sequence[str | Mapping[str, Any]], options: Mapping[str, Any] | None) -> list[str | Mapping[str, Any]]:
    """The rows with the options of a budget (its size of networks), where a row does not say otherwise.

    >>> sized(["ddpm", {"label": "wide", "model": "ddpm", "width": 24}], {"width": 16})
    [{'width': 16, 'model': 'ddpm'}, {'width': 24, 'label': 'wide', 'model': 'ddpm'}]
    """
    rows = [{"model": row} if isinstance(row, str) else row for row in said]
    return [{**options, **row} for row in rows] if options else list(said)


def _variant(said: str | Mapping[str, Any] | Variant) -> Variant:
    if isinstance(said, Variant):
        return said
    if isinstance(said, str):
        said = {"model": said}
    if not isinstance(said, Mapping) or not isinstance(said.get("model"), str):
        raise ValueError(f"Expected the name of a model, or label, model and options of it, got {said!r:.80}.")
    name = choose(said["model"], registry.names(), "model")
    known = registry.options(name)
    options = {k: _tuples(v) for k, v in said.items() if k not in _OWN}
    for option in options:
        choose(option, known, f"option of {name}")
    row = Variant(str(said.get("label", name)), name, options, str(said.get("published", "")))
    if not re.match(r"\w", row.folder):
        raise ValueError(f"Expected a label that begins with a letter or number, got {row.label!r}.")
    return row


def _tuples(value: Any) -> Any:
    """YAML has no tuples, options have no lists."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
