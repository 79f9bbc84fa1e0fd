"""Samples of a masked autoregressive flow on 43 columns of BSDS300 patches, against zuko.

Both flows have five affine layers with networks of the same weights per layer (four linear layers of 128), and are
trained side by side on the same batches until their held-out likelihoods agree within 0.25 nats (the one that is ahead
waits); then both draw the same number of samples. `error` is the largest difference between our samples and those of
the definition, one whole pass for each value, in float64 at the same z. In float32 rounding is magnified by the flow
itself: `float32_error` is the largest difference from float64, ours and the definition's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import alternate, comparison, versions
from genrep import data
from genrep.contracts import DataSpec
from genrep.distributions.flows.autoregressive import Autoregressive
from genrep.models import build

COLUMNS, N, STEPS, LAYERS, WIDTH = 43, 1000, 400, 5, 128


def patches() -> tuple[Tensor, Tensor]:
    """Training and held-out rows: 43 of the 63 columns, in standard units."""
    splits = data.load("bsds300")
    mean, std = (torch.tensor(v)[:COLUMNS] for v in (splits.spec.mean, splits.spec.std))
    train, held = ((p[torch.arange(min(len(p), 20_000))].x[:, :COLUMNS] - mean) / std for p in splits[1:3])
    return train, held[:4000]


def rival() -> Any:
    import zuko

    return zuko.flows.MAF(features=COLUMNS, transforms=LAYERS, hidden_features=[WIDTH] * 3)


def train_alike(ours: Any, theirs: Any, train: Tensor, held: Tensor) -> tuple[float, float]:
    """Held-out nats of both after alternating updates; whoever leads after half of them waits for the other."""
    losses = (lambda x: -ours.generative().log_prob(x).mean(), lambda x: -theirs().log_prob(x).mean())
    models = (ours, theirs)
    optimisers = [torch.optim.AdamW(m.parameters(), 1e-3, fused=True) for m in models]

    def held_out() -> list[float]:
        ours.eval(), theirs.eval()
        with torch.no_grad():
            return [float(f(held)) for f in losses]

    def update(who: int, k: int) -> None:
        models[who].train()
        x = train[torch.randint(len(train), (256,), generator=torch.Generator().manual_seed(k))]
        optimisers[who].zero_grad()
        losses[who](x).backward()
        torch.nn.utils.clip_grad_norm_(models[who].parameters(), 10.0)
        optimisers[who].step()

    for k in range(STEPS):
        update(0, k), update(1, k)
    for k in range(STEPS, 4 * STEPS):
        if k % 20 == 0:
            now = held_out()
            if abs(now[0] - now[1]) < 0.25:
                break
        update(int(now[1] > now[0]), k)
    first, second = held_out()
    return first, second


def run() -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    train, held = patches()
    ours, theirs = build("maf", DataSpec((COLUMNS,)), layers=LAYERS, width=WIDTH), rival()
    nats = train_alike(ours, theirs, train, held)
    z = torch.randn(N, COLUMNS)
    with torch.no_grad():
        f = ours.generative.bijection
        for way in ("walk", "jacobi"):
            for layer in layers_of(ours):
                layer.way = way
            mine, slow = alternate(lambda: f.inverse(z), lambda: theirs().sample((N,)), repeats=5)
            passes, rough = (
                [layer.passes for layer in layers_of(ours)],
                {"ours": f.inverse(z)[0], "definition": one_by_one(ours, z)},
            )
            ours.double()
            exact = one_by_one(ours, z.double())
            error = float((f.inverse(z.double())[0] - exact).abs().max())
            ours.float()
            yield comparison(
                f"maf sampling by {way}, {N} rows of {COLUMNS} columns, against zuko",
                mine,
                slow,
                target=5.0,
                error=error,
                float32_error={name: float((x - exact).abs().max()) for name, x in rough.items()},
                passes=passes,
                rival_passes=COLUMNS,
                held_out_nats={"genrep": nats[0], "zuko": nats[1]},
                versions=versions("zuko"),
            )


def layers_of(model: Any) -> list[Autoregressive]:
    return [m for m in model.modules() if isinstance(m, Autoregressive)]


def one_by_one(model: Any, z: Tensor) -> Tensor:
    """The definition: each value after a whole pass of the network of its layer."""
    for layer in reversed(model.generative.bijection.layers):
        if isinstance(layer, Autoregressive):
            x = torch.zeros_like(z)
            for column in layer.net.order:
                x[:, column] = layer.element.inverse(z, layer.net(x))[0][:, column]
            z = x
        else:
            z = layer.inverse(z)[0]
    return z
