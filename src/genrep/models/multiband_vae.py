"""The VAE of Multiband VAE: normals and bits, a translator to a shared space, a decoder."""

from __future__ import annotations

import torch
from torch import nn

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.bands import BandHead, BandPrior
from genrep.distributions.heads import Likelihood, LikelihoodName, likelihood_domain
from genrep.distributions.latent import LatentVariable
from genrep.models import recipe
from genrep.nets.autoencoder import NetworkName, convolutional, encoder_decoder
from genrep.nets.mlp import MLP
from genrep.nets.translator import Translated, Translator, band_codes
from genrep.objectives.autoencoding import Autoencoding
from genrep.objectives.bands import BandRate

DENSE, CONV = 384, 512  # widths of the shared space, as published
BINARY = 4


@recipe(family="autoencoder", reference="Deja et al. (2022), arXiv:2106.12196; bits: Jang, Gu & Poole (2017)")
def multiband_vae(
    data: DataSpec,
    *,
    latent: int = 8,
    binary: int = BINARY,
    aligned: int = 0,
    beta: float = 1.0,
    binary_beta: float = 0.0,
    likelihood: LikelihoodName = "auto",
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    conditional: bool = False,
) -> Model:
    """VAE with bands: lambda = (normals, bits), z = t(lambda, code of the band), x ~ p(x | z).

    Maximises E_q log p(x | z) - beta KL(q(normals | x) || N(0, I)); the probabilities of the bits of a band follow the
    mean of q. A band is a label: a task for `genrep continual --strategy multiband`, which this model is made for.

    Args:
        latent: Normals of lambda.
        binary: Bits of lambda.
        aligned: Dimensions of z; 0: 384, or 512 with convolutions.
        beta: Weight of the rate of the normals.
        binary_beta: Weight of the rate of the bits; published: 0.
        likelihood: p(x | z): logistic (cells of a logistic distribution over the levels), bernoulli, gaussian, or
            squared_error, which is not a likelihood; auto fits the data.
        network: conv for images; dense for anything, encoder 512-128-64 and decoder 512-1024; auto fits the data.
        width: Channels of the first convolution, or units of the first dense layer, which scales all; 0: 32 or 512.
        depth: Halvings of the image; 0: fits the data.
        conditional: A band for each label; otherwise there is one.
    """
    if conditional and not data.classes:
        raise ValueError(
            "A band is a label: conditional=True needs labels, and these data have none (a vector says no band)."
        )
    aligned = aligned or (CONV if convolutional(data, network, width, depth) else DENSE)
    code, channels = (2, latent + binary), Likelihood.channels_of(data, likelihood)
    if convolutional(data, network, width, depth):
        coders = encoder_decoder(data, code, channels, latent=aligned, network=network, width=width, depth=depth)
    else:
        w, out = width or 512, (channels, *data.shape[1:])
        hidden = [w, max(1, w // 4), max(1, w // 8)]
        coders = (
            MLP(data.shape, hidden, code),
            MLP((aligned,), [w, 2 * w], out),
        )
    return banded(
        data, *coders, latent=latent, binary=binary, aligned=aligned, beta=beta, binary_beta=binary_beta,
        likelihood=likelihood, bands=data.classes if conditional else 0,
    )  # fmt: skip


def banded(
    data: DataSpec,
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    latent: int,
    binary: int,
    aligned: int,
    beta: float,
    binary_beta: float,
    likelihood: LikelihoodName,
    bands: int,
) -> Model:
    """The model around an encoder (B, *shape) -> (B, 2, latent + binary) and a decoder (B, aligned) -> (B, channels,
    ...). `bands`: how many; 0: one, and no label is read.
    """
    if latent < 1 or binary < 0 or aligned < 2:
        raise ValueError(f"Expected latent >= 1, binary >= 0, aligned >= 2, got {latent}, {binary} and {aligned}.")
    count, told = max(1, bands), bands > 0
    if binary:
        sharpen_bits(encoder, binary)
    translator = Translator(latent, binary, band_codes(count).shape[1], aligned)
    generative = LatentVariable(
        BandPrior(latent, binary, count, conditional=told),
        Likelihood(Translated(translator, decoder), data, likelihood),
    )
    return Model(
        data,
        generative,
        Inference(latent=BandHead(encoder, binary, count, conditional=told)),
        Autoencoding(BandRate(binary, beta, binary_beta)),
        domain=likelihood_domain(data, likelihood),
        training={"lr": 1e-3},
    )


@torch.no_grad()
def sharpen_bits(encoder: nn.Module, binary: int, factor: float = 10.0) -> None:
    """W <- factor W for the rows of the encoder's last linear layer that give the logits of bits, in place.

    So bits tell of x from the start. Those that start as coin tosses are noise to the decoder, and the quickest way to
    be rid of noise is a constant: measured in docs/continual.md; neither text nor released code has it.
    """
    *_, last = (layer for layer in encoder.modules() if isinstance(layer, nn.Linear))
    last.weight.unflatten(0, (2, -1))[0, -binary:] *= factor
