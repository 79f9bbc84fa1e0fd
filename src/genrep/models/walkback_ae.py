"""The denoising autoencoder that generates by walking."""

from __future__ import annotations

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import Denoiser, NetworkFeatures
from genrep.distributions.domains import domain_for
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.schedules import Chain
from genrep.distributions.split import DenoisingLikelihood, Noised
from genrep.distributions.walkback import DenoisingChain
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.walkback import WalkBack


@recipe(family="diffusion", reference="Bengio, Yao, Alain & Vincent (2013), NeurIPS, arXiv:1305.6663")
def walkback_ae(
    data: DataSpec,
    *,
    beta_1: float = 0.4,
    walk_back: int = 3,
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """Generalised denoising autoencoder: a network removes one amount of noise; noising and denoising in turn samples.

    The relative of daed without a chain of noises: x~ ~ N(sqrt(1 - beta_1) x, beta_1 I), and p(x | x~) with a learnt
    variance, over the levels where there are such.

    Args:
        beta_1: Variance of the noise, in (0, 1); more mixes faster and leaves more to guess.
        walk_back: Noisy examples that each one of the data gives, along the model's own walk; 1: plain denoising.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        dropout: Probability, in the residual blocks.
        conditional: The network reads the label or condition.
    """
    if not 0 < beta_1 < 1:
        raise ValueError(f"Expected 0 < beta_1 < 1, the variance of the noise, got {beta_1}.")
    condition = condition_width(data, conditional)
    net = denoising_network(
        data,
        2,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        dropout=dropout,
        condition=condition,
    )
    # two steps, because the variance of p(x | x_1) lies between that of the second step's reversal and beta_1
    first = torch.log1p(-torch.tensor([0.0, beta_1, beta_1 / 50], dtype=torch.float64))
    chain = Chain(first.cumsum(0))
    process = VariancePreserving(chain)
    reconstruction = DenoisingLikelihood(Denoiser(net, process, "v", "learnt", condition), chain, data.levels)
    return Model(
        data,
        DenoisingChain(Noised(process, float(chain.t[1])), reconstruction, data.shape),
        Inference(process=process, features=NetworkFeatures(net, condition)),
        WalkBack(walk_back),
        domain=domain_for(data),
        training={"lr": 1e-3, "ema": 0.999},
    )
