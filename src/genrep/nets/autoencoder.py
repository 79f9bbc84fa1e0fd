"""Pairs of encoder and decoder for images and vectors, chosen by the shape of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from genrep.contracts import DataSpec
from genrep.nets.conv import ConvDecoder, ConvEncoder, default_depth
from genrep.nets.mlp import MLP

NetworkName = Literal["auto", "conv", "dense"]


def convolutional(data: DataSpec, network: NetworkName, width: int, depth: int) -> bool:
    """Whether to take convolutions; a ValueError for options that do not fit the data."""
    image = len(data.shape) == 3
    if network == "conv" and not image:
        raise ValueError(
            f"network=conv needs images (C, H, W), this data has shape {data.shape}; choose dense or auto."
        )
    if width < 0 or depth < 0:
        raise ValueError(f"Expected width and depth >= 0 (0: chosen by the data), got {width} and {depth}.")
    return image and network != "dense"


def encoder_decoder(
    data: DataSpec,
    code: Sequence[int],
    channels: int,
    *,
    latent: int,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    condition: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Encoder (B, *shape) -> (B, *code) and decoder (B, latent) -> (B, channels, ...), both with a condition.

    `network`: conv needs images; auto takes it for images and dense networks otherwise. `width`: channels of the first
    convolution or units of a dense layer, 0: 32 or 512. `depth`: halvings or hidden layers, 0: what fits the data.
    """
    shape_out = (channels, *data.shape[1:])
    if convolutional(data, network, width, depth):
        width, depth = width or 32, depth or default_depth(*data.shape[1:])
        encoder = ConvEncoder(data.shape, width, code, depth, condition)
        decoder = ConvDecoder(latent, width, shape_out, depth, condition)
    else:
        hidden = [width or 512] * (depth or 2)
        encoder, decoder = MLP(data.shape, hidden, code, condition), MLP((latent,), hidden, shape_out, condition)
    if condition and data.classes:
        if isinstance(encoder, MLP):
            encoder.embed()
        decoder.embed()
    return encoder, decoder
