"""Has a Gaussian VAE converged?  At a stationary point its bound is a sum of three entropies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from genrep.contracts import Batch, Model, Unsupported, evaluating, seeded
from genrep.distributions.basic import Gaussian, kl
from genrep.evaluation.estimate import Estimate, estimate
from genrep.objectives.autoencoding import inside


class Entropies(NamedTuple):
    """All in nats per example: the bound, the sum, and the gap between them, bound - sum."""

    bound: Estimate
    total: Estimate
    gap: Estimate


def three_entropies(
    model: Model,
    x: Tensor,
    y: Tensor | None = None,
    *,
    draws: int = 4,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Entropies:
    """ELBO against E_x H[q(z | x)] - H[p(z)] - E_x E_q H[p(x | z)], over *training* examples x, as the data holds them.

    Where the gradient of the ELBO (beta = 1) is zero the two are equal, for Gaussian q, p(z) and p(x | z) with a learnt
    variance: shifting every log standard deviation of p(x | z), and scaling z against the first layer of the decoder,
    are among the moves that no longer help. A gap other than zero says that training has not converged; a gap of zero
    does not prove that it has. At a stationary point the sum needs no integral over x given z, so it also is the bound
    in closed form. Standard errors are over the examples; the gap's is paired.

    Reference: Damm et al. (2023), arXiv:2010.14860.
    Raises Unsupported for a model whose prior, posterior or likelihood is not Gaussian.
    """
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, got {draws}.")
    if not {"encode", "decode", "sample"} <= model.capabilities:
        raise Unsupported("The three entropies are those of a VAE: this model lacks a prior, posterior or likelihood.")
    with torch.no_grad(), evaluating(model), seeded(seed):
        parts = [
            _one(
                model, Batch(model.check(x[i : i + 256]), None if y is None else y[i : i + 256].to(model.device)), draws
            )
            for i in range(0, len(x), 256)
        ]
    bound, total = (torch.cat([p[k] for p in parts]).double().cpu() for k in (0, 1))
    how: dict[str, Any] = {"n": (len(x), 0), "level": level, "draws": draws, "seed": seed, "protocol": protocol}
    names = {"bound": bound, "sum of three entropies": total, "bound - sum of three entropies": bound - total}
    return Entropies(
        *(
            estimate(float(v.mean()), float(v.std()) / len(v) ** 0.5, metric=f"{k}, nats", **how)
            for k, v in names.items()
        )
    )


def _one(model: Model, batch: Batch, draws: int) -> tuple[Tensor, Tensor]:
    """Bound and sum of entropies of each example, (B,), inside the domain of the model."""
    x, y, parts = inside(model, batch), batch.y, model.generative
    q, prior = model.inference.latent(x, y=y), parts.get_submodule("prior")(y=y)
    likelihood = parts.get_submodule("likelihood")
    _check(q, prior)
    found, spread = [], []
    for _ in range(draws):
        p = likelihood(q.rsample(), y=y)
        _check(p)
        found.append(p.log_prob(x))
        spread.append(p.entropy())
    rate = kl(q, prior)
    assert rate is not None
    bound = torch.stack(found).mean(0) - rate
    return bound, q.entropy() - prior.entropy() - torch.stack(spread).mean(0)


def _check(*laws: Distribution) -> None:
    for law in laws:
        if type(law) is not Gaussian:
            raise Unsupported(
                f"The three entropies are known for Gaussian laws, and this model has a {type(law).__name__}: "
                "train a `vae` with likelihood=gaussian."
            )
