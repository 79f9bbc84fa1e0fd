"""What bits beside normals do for a VAE of a few classes: margins of q(z), what one latent tells, draws in between.

`models` and `settings` as in `compare`, all multiband_vae; `stream` as in kind `continual`, its first task is what is
learnt. A budget says `steps` and `samples`. Off N(0, 1): Wasserstein-1 distance of one normal, over test examples, to
N(0, 1), the largest over normals. Told by one normal, by one bit: |2 AUC - 1| of the first class against the rest, the
largest over them. In between: the share of samples whose class a logistic regression on features gives less than 0.95,
beside that of test examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from genrep import storage
from genrep.contracts import Model, evaluating, seeded
from genrep.data.pictures import picture
from genrep.data.splits import Splits
from genrep.distributions.bands import Band
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import examples
from genrep.interface import continual
from genrep.interface.experiments.continual import source_of
from genrep.interface.pieces import kept, pm, trained
from genrep.interface.variants import variants

NEEDED = ("data", "models", "stream")
KEYS = ("models", "settings", "stream")
BUDGET = ("steps", "samples")
SURE = 0.95
_SHOWN = 12
_COLUMNS = {"normal": "off N(0, 1)", "one": "told by one normal", "bit": "told by one bit", "between": "in between"}
_PROTOCOL = (
    "{steps} updates a row on the first task of a stream ({rule}); {samples} samples, all its test examples. "
    "Off N(0, 1): Wasserstein-1 distance of one normal of the codes to N(0, 1), largest over normals. Told: |2 "
    "AUC - 1| of the class by one latent, largest over them. In between: share of which a classifier is less "
    "than 0.95 sure, ± standard error. Pictures of samples: upper row as drawn, lower row the same normals with "
    "the most telling bit turned, or without bits with the two most telling normals at 0."
)


class Codes(NamedTuple):
    """A draw of lambda of every test example: normals (N, C), bits (N, D), and whether it is of the first class."""

    normals: Tensor
    bits: Tensor
    first: Tensor

    def told(self, z: Tensor) -> Tensor:
        """|2 AUC - 1| of each column of z (N, K), in [0, 1]; (K,)."""
        return torch.tensor([abs(2 * roc_auc_score(self.first.numpy(), column) - 1) for column in z.T.numpy()])


def run(said: Mapping[str, Any], how: Mapping[str, Any], *, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    rows = variants(said["models"])
    stream, whole = continual.read(source_of(said), seed)
    splits = stream.tasks[0]
    samples, lines, pictures = how.get("samples", 2000), [], {}
    between = kept(folder, "real data", lambda: _Judge(whole, splits).share(examples(splits.test, samples)[0]))
    lines.append(["real data", "", "", "", pm(*between, digits=3)])
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        if not isinstance(_q(model, splits.test[torch.arange(2)].x), Band):
            raise ValueError(f"Kind binary_latents needs rows of multiband_vae, got {row.model}.")
        drawn, margins = folder / f"{row.folder}-samples.png", folder / f"{row.folder}-latents.png"
        found = kept(
            folder, row.label, lambda m=model, d=drawn, p=margins: _measured(m, whole, splits, samples, seed, d, p)
        )
        lines.append([row.label, *(_cell(found[k]) for k in _COLUMNS)])
        pictures |= {f"latents, {row.label}": margins.name, f"samples, {row.label}": drawn.name}
    return {
        "protocol": _PROTOCOL.format(steps=how["steps"], samples=samples, rule=stream.about["rule"]),
        "columns": ["row", *_COLUMNS.values()],
        "rows": lines,
        "pictures": pictures,
    }


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return pm(*value, digits=3) if isinstance(value, list) else f"{value:.3f}"


class _Judge:
    """A logistic regression of the kept classes on features of the whole set."""

    def __init__(self, whole: Splits, splits: Splits) -> None:
        self.features = extractor("auto", whole)
        x, y = examples(splits.train, 5000)
        assert y is not None
        self.reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.reader.fit(self.features(x).numpy(), y.numpy())

    def share(self, x: Tensor) -> list[float]:
        """Of examples of which it is not sure, with its standard error."""
        sure = self.reader.predict_proba(self.features(x).numpy()).max(1)
        p = float((sure < SURE).mean())
        return [p, math.sqrt(p * (1 - p) / len(x))]


def _q(model: Model, x: Tensor) -> Any:
    with torch.no_grad(), evaluating(model):
        return model.inference.latent(model.domain.inward(x.to(model.device)))


def codes(model: Model, splits: Splits, seed: int) -> Codes:
    """One draw of q(lambda | x) for every test example."""
    x, y = examples(splits.test)
    assert y is not None
    with seeded(seed):
        parts = [(q.sample().cpu(), q.widths) for q in (cast(Band, _q(model, part)) for part in x.split(1024))]
    z, (normals, bits) = torch.cat([part for part, _ in parts]), parts[0][1]
    return Codes(z[:, :normals], z[:, normals : normals + bits], y == y.min())


def off_normal(z: Tensor) -> Tensor:
    """W_1 of each column of z (N, C) to N(0, 1), by the quantiles at (i - 1/2) / N; (C,)."""
    at = (torch.arange(len(z), dtype=torch.float64) + 0.5) / len(z)
    return (z.double().sort(0).values - torch.special.ndtri(at)[:, None]).abs().mean(0)


def _measured(
    model: Model, whole: Splits, splits: Splits, samples: int, seed: int, drawn: Path, margins: Path
) -> dict[str, Any]:
    found = codes(model, splits, seed)
    normals, bits = found.told(found.normals), found.told(found.bits)
    _margins(found, margins)
    _samples(model, found, normals, bits, seed, drawn)
    return {
        "normal": float(off_normal(found.normals).max()),
        "one": float(normals.max()),
        "bit": float(bits.max()) if len(bits) else None,
        "between": _Judge(whole, splits).share(model.sample(samples, seed=seed)),
    }


def _margins(found: Codes, path: Path) -> None:
    """A histogram for each latent, first class above, the rest below; the normals beside N(0, 1)."""
    latents = torch.cat([found.normals, found.bits], 1)
    count, continuous = latents.shape[1], found.normals.shape[1]
    figure = Figure(figsize=(1.1 * count, 2.6), layout="constrained")
    panels, grid = figure.subplots(2, count, squeeze=False), np.linspace(-3.5, 3.5, 60)
    for line, (chosen, name) in enumerate([(found.first, "first class"), (~found.first, "the rest")]):
        for j, axes in enumerate(panels[line]):
            z = latents[chosen, j].numpy()
            if j < continuous:
                axes.hist(z, bins=30, range=(-3.5, 3.5), density=True, color=f"C{line}")
                axes.plot(grid, np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi), color="black", linewidth=0.8)
            else:
                axes.bar([0, 1], [(z == 0).mean(), (z == 1).mean()], color=f"C{line}")
                axes.set(xlim=(-0.6, 1.6), ylim=(0, 1))
            axes.set(yticks=[])
            axes.tick_params(labelsize=6)
            if not line:
                axes.set_title(f"normal {j + 1}" if j < continuous else f"bit {j - continuous + 1}", fontsize=7)
        panels[line, 0].set_ylabel(name, fontsize=8)
    with storage.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _samples(model: Model, found: Codes, normals: Tensor, bits: Tensor, seed: int, path: Path) -> None:
    """Draws, and below each the same one with what tells the classes taken away or turned round."""
    with torch.no_grad(), evaluating(model), seeded(seed):
        prior: Any = model.generative.get_submodule("prior")
        z = prior().sample((_SHOWN,))
        changed, split = z.clone(), found.normals.shape[1]
        if len(bits):
            place = split + int(bits.argmax())
            changed[:, place] = 1 - changed[:, place]
        else:
            changed[:, normals.argsort(descending=True)[:2]] = 0.0
        x = model.decode(torch.cat([z, changed])).cpu()
    with storage.atomic(path) as temporary:
        picture(x, model.data, columns=_SHOWN).save(temporary, format="PNG")
