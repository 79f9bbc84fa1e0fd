"""What bits beside normals do for a VAE of a few classes: margins of q(z), what one latent tells, draws in between.

`models` and `settings` as in `compare`, all multiband_vae; `stream` as in kind `continual`, its first task is what is
learnt. A budget says `steps` and `samples`. Off N(0, 1): Wasserstein-1 distance of one normal, over test examples, to
N(0, 1), the largest over normals. Told by one normal, by one bit: |2 AUC - 1| of the first class against the rest, the
largest over them. In between: the share of samples whose class a logistic regression on features gives less than 0.95,
beside that of test examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from genrep import storage
from genrep.contracts import Model, evaluating, seeded
from genrep.data.pictures import picture
from genrep.data.splits import Splits
from genrep.distributions.bands import Band, BandHead
from genrep.evaluation.estimate import proportion
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import examples
from genrep.evaluation.logistic import logistic
from genrep.interface import continual
from genrep.interface.experiments.continual import source_of
from genrep.interface.latent import margins_figure
from genrep.interface.pieces import kept, pm, trained
from genrep.interface.variants import variants
from genrep.transport.sliced import wasserstein_1d

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
    "than {sure} sure, ± standard error. Pictures of samples: upper row as drawn, lower row the same normals with "
    "the most telling bit turned, or without bits with the two most telling normals at 0."
)


class Codes(NamedTuple):
    """A draw of lambda of every test example: normals (N, C), bits (N, D), and whether it is of the first class, (N,).

    Reference: thesis, section 9.6.5, which tells it in pictures.
    """

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
    for row in rows:
        if not isinstance(row.build(splits.spec).inference.latent, BandHead):
            raise ValueError(f"Kind binary_latents needs rows of multiband_vae, got {row.model}.")
    samples, lines, pictures = how.get("samples", 2000), [], {}
    unsure = _unsure(whole, splits)
    between = kept(folder, "real data", lambda: unsure(examples(splits.test, samples)[0]))
    lines.append(["real data", "", "", "", pm(*between, digits=3)])
    for row in rows:
        model = trained(
            row, splits, folder, steps=how["steps"], seed=seed, progress=progress, **said.get("settings", {})
        )
        place = folder / row.folder
        found = kept(
            folder,
            row.label,
            lambda m=model, p=place: _measured(m, splits, seed, p) | {"between": unsure(m.sample(samples, seed=seed))},
        )
        lines.append([row.label, *(_cell(found[k]) for k in _COLUMNS)])
        pictures |= {f"{what}, {row.label}": f"{row.folder}-{what}.png" for what in ("latents", "samples")}
    return {
        "protocol": _PROTOCOL.format(steps=how["steps"], samples=samples, rule=stream.about["rule"], sure=SURE),
        "columns": ["row", *_COLUMNS.values()],
        "rows": lines,
        "pictures": pictures,
    }


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return pm(*value, digits=3) if isinstance(value, list) else f"{value:.3f}"


def _unsure(whole: Splits, splits: Splits) -> Callable[[Tensor], list[float]]:
    """The share of examples x that a logistic regression is less sure of than SURE, with its standard error.

    It reads features of the whole set and is trained on the classes of `splits`.
    """
    features = extractor("auto", whole)
    x, y = examples(splits.train, 5000)
    assert y is not None
    reader = logistic(features(x).double().numpy(), y.numpy(), 1.0)

    def share(x: Tensor) -> list[float]:
        unsure = float((reader.confidence(features(x).double().numpy()) < SURE).mean())
        found = proportion(unsure, len(x), n=(len(x), 0))
        return [found.value, found.standard_error]

    return share


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
    """W_1(z_j, N(0, 1)) of each column of z (N, C), the normal by its quantiles at (i - 1/2) / N; (C,)."""
    normal = torch.special.ndtri((torch.arange(len(z), dtype=torch.float64) + 0.5) / len(z))
    return wasserstein_1d(z.double().T.contiguous(), normal.expand(z.shape[1], -1), p=1)


def _measured(model: Model, splits: Splits, seed: int, place: Path) -> dict[str, Any]:
    """What the codes of test examples tell; both pictures beside `place`."""
    found = codes(model, splits, seed)
    margins_figure(found.normals, found.bits, found.first, place.with_name(f"{place.name}-latents.png"))
    _samples(model, found, seed, place.with_name(f"{place.name}-samples.png"))
    bits = found.told(found.bits)
    return {
        "normal": float(off_normal(found.normals).max()),
        "one": float(found.told(found.normals).max()),
        "bit": float(bits.max()) if len(bits) else None,
    }


def _samples(model: Model, found: Codes, seed: int, path: Path) -> None:
    """Draws, and below each the same one with what tells the classes taken away or turned round."""
    with torch.no_grad(), evaluating(model), seeded(seed):
        prior: Any = model.generative.get_submodule("prior")
        z = prior().sample((_SHOWN,))
        changed, split = z.clone(), found.normals.shape[1]
        if found.bits.shape[1]:
            place = split + int(found.told(found.bits).argmax())
            changed[:, place] = 1 - changed[:, place]
        else:
            changed[:, found.told(found.normals).argsort(descending=True)[:2]] = 0.0
        x = model.decode(torch.cat([z, changed])).cpu()
    with storage.atomic(path) as temporary:
        picture(x, model.data, columns=_SHOWN).save(temporary, format="PNG")
