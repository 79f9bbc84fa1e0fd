"""Posterior and likelihood of an autoencoder, on the networks that fit the data."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genrep.contracts import Conditional, DataSpec
from genrep.distributions.heads import GaussianHead, Likelihood, LikelihoodName, PointHead
from genrep.nets.autoencoder import NetworkName, encoder_decoder


def coder_pair(
    data: DataSpec,
    *,
    latent: int,
    likelihood: LikelihoodName,
    network: NetworkName,
    width: int,
    depth: int,
    condition: int = 0,
    point: bool = False,
    onto: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Conditional, Likelihood]:
    """q(z | x, y) and p(x | z, y); a ValueError for a latent space without dimensions.

    q is N(mean, std), or with `point` all mass at onto(net(x, y)). `condition`: width of y for both, 0 if unread.
    """
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    encoder, decoder = encoder_decoder(
        data,
        (latent,) if point else (2, latent),
        Likelihood.channels_of(data, likelihood),
        latent=latent,
        network=network,
        width=width,
        depth=depth,
        condition=condition,
    )
    posterior = PointHead(encoder, condition, onto) if point else GaussianHead(encoder, condition)
    return posterior, Likelihood(decoder, data, likelihood, condition)
