"""Holes in a latent space: where the prior has mass and the codes of the data, the aggregate posterior, have none.

A classifier between draws of the aggregate posterior q(z) = E_x q(z | x) and draws of the prior p(z) estimates their
ratio, q(z) / p(z) = D(z) / (1 - D(z)) with D the probability of q (Sugiyama, Suzuki & Kanamori, 2012, section 4). It is
trained on one half of the draws and read on the other, in both directions, so no draw is judged by a classifier that
has seen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.contracts import Model, Unsupported, evaluating, seeded
from genrep.data.splits import Splits
from genrep.distributions.latent import draws
from genrep.evaluation.arrays import features, group_of
from genrep.evaluation.estimate import Estimate, estimate
from genrep.nets.condition import encode_condition
from genrep.nets.mlp import MLP

_FEWEST = 100  # draws of each side
_EPOCHS, _PATIENCE, _BATCH = 150, 25, 128


class Holes(NamedTuple):
    """`mass`: p(R) - q(R) of the region R = {estimated q / p < threshold}; `region`: p(R) alone; `divergence`: nats.

    `log_ratio` (N,): estimated log q(z) / p(z) at the draws of the prior, in their order.
    """

    mass: Estimate
    region: Estimate
    divergence: Estimate
    log_ratio: Tensor


def holes(
    *,
    prior: Tensor,
    posterior: Tensor,
    threshold: float = 0.1,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Holes:
    """Prior mass in holes, from draws of the prior (N, D) and of the aggregate posterior (M, D).

        R = {z: D(z) / (1 - D(z)) < threshold},    mass = p(R) - q(R) <= TV(p, q),
        divergence = log 2 + E_p log(1 - D) / 2 + E_q log D / 2 <= JS(p, q) <= log 2

    Both are counted on draws that the classifier has not seen, so they are unbiased for the region and the classifier
    found, and zero in expectation (divergence: at most zero) where the laws agree, however bad the classifier. A hole
    of prior mass m that is found whole gives mass = m. Standard errors are those of the counts, given the region.
    Draws of conditional models carry their condition as further coordinates.

    Raises ValueError for fewer than 100 draws of a side, unequal widths, or a threshold not in (0, 1).
    """
    p, q = features(prior, "draws of the prior").cpu().double(), features(posterior, "codes").cpu().double()
    if p.shape[1] != q.shape[1]:
        raise ValueError(f"Expected draws of one width, got {tuple(p.shape)} and {tuple(q.shape)}.")
    if min(len(p), len(q)) < _FEWEST:
        raise ValueError(f"Expected at least {_FEWEST} draws of each side, got {len(p)} and {len(q)}.")
    if not 0 < threshold < 1:
        raise ValueError(f"Expected threshold in (0, 1), a density ratio, got {threshold}.")
    half_p, half_q = group_of(len(p), 2, seed), group_of(len(q), 2, seed + 1)
    of_p, of_q = p.new_zeros(len(p)), p.new_zeros(len(q))
    for fold in (0, 1):
        ratio = _classifier(p[half_p != fold], q[half_q != fold], seed)
        of_p[half_p == fold], of_q[half_q == fold] = ratio(p[half_p == fold]), ratio(q[half_q == fold])
    in_p, in_q = (of_p < math.log(threshold)).double(), (of_q < math.log(threshold)).double()
    surprise = -F.softplus(of_p), -F.softplus(-of_q)  # log(1 - D), log D
    how: dict[str, Any] = {"n": (len(q), len(p)), "level": level, "seed": seed, "threshold": threshold,
                           "protocol": protocol, "estimator": "classifier, two folds"}  # fmt: skip
    return Holes(
        estimate(float(in_p.mean() - in_q.mean()), math.hypot(_error(in_p), _error(in_q)), metric="hole mass", **how),
        estimate(float(in_p.mean()), _error(in_p), metric="prior mass below the threshold", **how),
        estimate(
            math.log(2) + 0.5 * float(surprise[0].mean() + surprise[1].mean()),
            0.5 * math.hypot(_error(surprise[0]), _error(surprise[1])),
            metric="Jensen-Shannon bound, nats",
            **how,
        ),
        of_p,
    )


def _error(values: Tensor) -> float:
    return float(values.std()) / len(values) ** 0.5


def _classifier(p: Tensor, q: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """z -> estimated log q(z) / p(z), from a network whose training stops where its held-out cross-entropy is least."""
    z, target = torch.cat([p, q]).float(), torch.cat([p.new_zeros(len(p)), p.new_ones(len(q))]).float()
    mean, std, shift = z.mean(0), z.std(0).clamp_min(1e-12), math.log(len(p) / len(q))
    z = (z - mean) / std
    with seeded(seed), torch.enable_grad():
        order = torch.randperm(len(z))
        held, fit = order[: len(z) // 5], order[len(z) // 5 :]
        net = MLP(z.shape[1:], [64, 64], (1,))
        optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-2)
        best, kept, misses = math.inf, {}, 0
        for _ in range(_EPOCHS):
            for rows in fit[torch.randperm(len(fit))].split(_BATCH):
                optimiser.zero_grad()
                F.binary_cross_entropy_with_logits(net(z[rows])[:, 0], target[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                loss = float(F.binary_cross_entropy_with_logits(net(z[held])[:, 0], target[held]))
            misses = 0 if loss < best else misses + 1
            if not misses:
                best, kept = loss, {k: t.clone() for k, t in net.state_dict().items()}
            if misses >= _PATIENCE:
                break
    net.load_state_dict(kept)

    def log_ratio(z: Tensor) -> Tensor:
        with torch.no_grad():
            return net((z.float() - mean) / std)[:, 0].double() + shift

    return log_ratio


class Latents(NamedTuple):
    """Draws of a model's prior and of its aggregate posterior, (n, D) each, and the condition of both or None."""

    prior: Tensor
    posterior: Tensor
    y: Tensor | None

    def joint(self, width: int) -> tuple[Tensor, Tensor]:
        """Prior and posterior with the condition, if there is one, as further coordinates."""
        if self.y is None:
            return self.prior, self.posterior
        c = encode_condition(self.y, width, self.prior)
        return torch.cat([self.prior, c], 1), torch.cat([self.posterior, c], 1)


def latents(model: Model, splits: Splits, *, n: int = 5000, seed: int = 0) -> Latents:
    """n draws of q(z | x) over test examples (all of them, if there are fewer), and as many of p(z), by `seed`.

    A conditional model is asked with the labels or conditions of those examples, on both sides.
    """
    model.require("encode")
    model.require("sample")
    parts: Any = model.generative
    if not hasattr(parts, "prior"):
        raise Unsupported("Holes are between codes and a prior: this model has no part generative.prior.")
    index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))[:n]
    x, y = splits.test[index]
    y = model.condition(y, len(x)) if model.generative.reads_y else None
    prior, posterior = [], []
    with torch.no_grad(), evaluating(model), seeded(seed):
        for i in range(0, len(x), 256):
            part, given = x[i : i + 256].to(model.device), None if y is None else y[i : i + 256]
            latent = model.inference.latent
            q = latent(model.domain.inward(part), y=given if latent.reads_y else None)
            posterior.append((q.rsample() if q.has_rsample else q.sample()).flatten(1).cpu())
            p = parts.prior(y=given)
            prior.append(draws(p, len(part)).flatten(1).cpu())
    return Latents(torch.cat(prior), torch.cat(posterior), None if y is None else y.cpu())


def find_holes(
    model: Model, splits: Splits, *, n: int = 5000, threshold: float = 0.1, seed: int = 0
) -> tuple[Holes, Latents]:
    """`holes` of a model on the test split of its data, and the draws that they were found in."""
    found = latents(model, splits, n=n, seed=seed)
    name = model.recipe.name if model.recipe else "own"
    prior, posterior = found.joint(splits.spec.classes or splits.spec.condition)
    protocol = {"model": name, "data": splits.name, "split": "test"}
    return holes(prior=prior, posterior=posterior, threshold=threshold, seed=seed, protocol=protocol), found


def extremes(log_ratio: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Indices of n draws of the prior in the densest and in the emptiest tenth by the ratio, spread evenly."""
    order, tenth = log_ratio.argsort(), max(n, len(log_ratio) // 10)
    pick = torch.linspace(0, min(tenth, len(order)) - 1, min(n, len(order))).long()
    return order.flip(0)[pick], order[pick]
