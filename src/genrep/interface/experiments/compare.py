"""Train models alike and measure them alike: `models`, `metrics`, and `orders` that should hold between them.

`models` is a list of names or of mappings {label, model, published, and options of the model}; `metrics` names what is
measured (all, if it is left out); `settings` are settings of training for all rows. `orders` is a list of
{metric: nats, rising: [label, label, ...]}: each is to be below the next. A budget says `steps` or `seconds`, and may
say `samples`, `examples`, `evaluations`, `bound_evaluations` and `features`, the arguments of `genrep.compare`, and
`options` of all models, where a row does not say otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrep.evaluation.estimate import Estimate, difference
from genrep.evaluation.likelihood import BY_MODEL
from genrep.evaluation.report import revived
from genrep.interface.compare import compare
from genrep.interface.variants import sized

NEEDED = ("data", "models")
KEYS = ("models", "metrics", "settings", "orders")
BUDGET = (
    "steps",
    "seconds",
    "samples",
    "examples",
    "evaluations",
    "bound_evaluations",
    "features",
    "options",
    "settings",
)


def run(
    said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool, **settings: Any
) -> dict[str, Any]:
    """A report without logs and jackknife replicates, and what became of the orders."""
    budget = {k: v for k, v in how.items() if k not in ("settings", "options")}
    common = {**said.get("settings", {}), **how.get("settings", {}), **settings}
    models = sized(said["models"], how.get("options"))
    found = compare(
        models, said["data"], out=folder, seed=seed, metrics=said.get("metrics"), progress=progress,
        **budget, **common,
    )  # fmt: skip
    pictures = {
        label: entry["pictures"][title]
        for label, entry in found["models"].items()
        for title in ("samples", "samples and test data")
        if title in entry["pictures"]
    }
    rows = {label: _without_bulk(entry) for label, entry in found["models"].items()}
    return {
        "protocol": found["protocol"],
        "null": found["null"],
        "models": rows,
        "orders": orders(said.get("orders", []), found["models"]),
        "pictures": pictures,
    }


def _without_bulk(entry: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {k: {i: v for i, v in m.items() if i != "replicates"} for k, m in entry["metrics"].items()}
    training = {k: v for k, v in entry["training"].items() if k != "log"}
    return {**entry, "metrics": metrics, "training": training}


def orders(asked: list[Mapping[str, Any]], models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each neighbouring pair of an order, the paired difference, and "holds", "is reversed" or "is not decided".

    An order is claimed only where the interval of the difference, paired over the same test examples, leaves zero out.
    """
    found = []
    for order in asked:
        for low, high in itertools.pairwise(order["rising"]):
            of_low, of_high = (revived(models[label]["metrics"][order["metric"]]) for label in (low, high))
            between = difference(_of_its_kind(of_low), _of_its_kind(of_high))
            bottom, top, _ = between.interval
            outcome = "holds" if top < 0 else "is reversed" if bottom > 0 else "is not decided"
            pair = {"metric": order["metric"], "low": low, "high": high, "outcome": outcome}
            found.append({**pair, "difference": between.value, "interval": [bottom, top]})
    return found


def _of_its_kind(found: Estimate) -> Estimate:
    """Without what may differ between exact values and bounds of one quantity."""
    return found._replace(protocol={k: v for k, v in found.protocol.items() if k not in BY_MODEL})
