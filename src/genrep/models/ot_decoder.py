"""A decoder without an encoder, trained by optimal transport."""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.domains import domain_for
from genrep.distributions.heads import PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName, encoder_decoder
from genrep.nets.condition import condition_width
from genrep.objectives.transport import Transport
from genrep.transport.sinkhorn import sinkhorn_divergence

_FEW = 256  # samples below which the bias of a minibatch is warned about


@recipe(
    family="autoencoder",
    reference="Genevay, Peyré & Cuturi (2018), arXiv:1706.00292; Feydy et al. (2019), arXiv:1810.08278 (debiased)",
)
def ot_decoder(
    data: DataSpec,
    *,
    latent: int = 16,
    draws: int = 256,
    blur: float = 0.05,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
    condition_scale: float = 5.0,
) -> Model:
    """Optimal-transport decoder: z ~ N(0, I), x = g(z), with S(samples, data) the only loss; no encoder, no critic.

    S is the debiased Sinkhorn divergence between a batch and `draws` samples, cost |a - b|^2 / 2 over all values. Its
    minimum over finite batches is biased: samples come out smoother and less varied than the data, the more so the
    smaller batch and draws are.

    Args:
        latent: Dimensions of z.
        draws: Samples on the model's side of the divergence, at least; rounded up to a multiple of the batch.
        blur: Square root of the entropic regularisation, per square root of the number of values.
        network: conv for images, dense for anything; auto fits the data.
        width: Channels of the first convolution, or units of a dense layer; 0: 32 or 512.
        depth: Halvings of the image, or hidden layers; 0: fits the data.
        conditional: The decoder reads the label or condition, and S compares (x, condition_scale y).
        condition_scale: How far apart conditions are in S, per square root of the number of values.
    """
    if latent < 1:
        raise ValueError(f"Expected latent >= 1, got {latent}.")
    if not blur > 0:
        raise ValueError(f"Expected blur > 0, got {blur}.")
    if draws < _FEW:
        warnings.warn(
            f"A Sinkhorn divergence of {draws} samples is biased: what is generated will vary too little. Take draws "
            f"and batch of at least {_FEW}.",
            stacklevel=3,
        )
    condition = condition_width(data, conditional)
    _, decoder = encoder_decoder(
        data, (1,), data.shape[0], latent=latent, network=network, width=width, depth=depth, condition=condition
    )
    unit = math.sqrt(data.size)
    divergence = partial(sinkhorn_divergence, blur=blur * unit)
    return Model(
        data,
        LatentVariable(
            StandardNormal(latent), PointHead(decoder, condition, None if data.levels is None else torch.tanh)
        ),
        Inference(),
        Transport(divergence, draws, condition, condition_scale * unit),
        domain=domain_for(data),
        training={"lr": 1e-3, "batch": 256},
    )
