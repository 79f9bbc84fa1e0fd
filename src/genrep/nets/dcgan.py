"""Generator and critic of the deep convolutional GAN, and their dense counterparts for vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genrep.contracts import DataSpec
from genrep.nets.autoencoder import NetworkName, convolutional
from genrep.nets.conv import default_depth, norm, sizes
from genrep.nets.mlp import MLP


class ConvGenerator(nn.Module):
    """(B, z), (B, condition) or None -> (B, C, H, W): one linear layer, then transposed convolutions of stride 2."""

    def __init__(
        self, latent: int, width: int, shape_out: Sequence[int], depth: int, condition: int = 0, *, bounded: bool
    ) -> None:
        super().__init__()
        channels, height, wide = shape_out
        self.sizes = sizes(height, wide, depth)[::-1]
        widths = [width * min(2**k, 8) for k in range(depth + 1)][::-1]
        self.start = (widths[0], *self.sizes[0])
        self.stem = nn.Linear(latent + condition, math.prod(self.start))
        self.blocks = nn.ModuleList(
            nn.Sequential(norm(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Sequential(norm(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], channels, 3, padding=1))
        self.condition, self.bounded = condition, bounded

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        if self.condition:
            assert c is not None
            z = torch.cat([z, c], 1)
        h = self.stem(z).unflatten(1, self.start)
        for block, (height, wide) in zip(self.blocks, self.sizes[1:], strict=True):
            h = block(h)[..., :height, :wide]
        x = self.head(h)
        return x.tanh() if self.bounded else x


class ScoredFeatures(nn.Module):
    """(B, *x), (B, condition) or None -> (B, 1): score = w' h(x) + c' V h(x) (Miyato & Koyama, 2018, eq. 3)."""

    def __init__(self, features: nn.Module, width: int, condition: int = 0) -> None:
        super().__init__()
        self.features, self.score = features, nn.Linear(width, 1)
        self.projection = nn.Linear(width, condition, bias=False) if condition else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.features(x)
        if self.projection is None:
            return self.score(h)
        assert c is not None
        return self.score(h) + (c * self.projection(h)).sum(1, keepdim=True)


def conv_critic(shape: Sequence[int], width: int, depth: int, condition: int = 0) -> ScoredFeatures:
    """Convolutions of stride 2 and a linear score; odd sizes are rounded up."""
    c, h, w = shape
    widths = [width * min(2**k, 8) for k in range(depth + 1)]
    layers: list[nn.Module] = [nn.Conv2d(c, widths[0], 3, padding=1), nn.LeakyReLU(0.2)]
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(a, b, 4, stride=2), nn.LeakyReLU(0.2)]
    height, wide = sizes(h, w, depth)[-1]
    return ScoredFeatures(nn.Sequential(*layers, nn.Flatten()), widths[-1] * height * wide, condition)


def dense_critic(shape: Sequence[int], hidden: Sequence[int], condition: int = 0) -> ScoredFeatures:
    """Dense layers and a linear score; leaky, because saturating slopes would starve a critic of bounded slope."""
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return ScoredFeatures(nn.Sequential(*layers), widths[-1], condition)


def lipschitz(net: nn.Module) -> nn.Module:
    """The network with every weight divided by its largest singular value (Miyato et al., 2018, eq. 8)."""
    for layer in list(net.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            spectral_norm(layer)
    return net


def generator_critic(
    data: DataSpec,
    *,
    latent: int,
    network: NetworkName = "auto",
    width: int = 0,
    depth: int = 0,
    condition: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Generator (B, latent) -> (B, *shape) and critic (B, *shape) -> (B, 1), both with a condition.

    The options are those of `encoder_decoder`. Images of integer levels come out in [-1, 1].
    """
    if not convolutional(data, network, width, depth):
        hidden = [width or 512] * (depth or 2)
        return MLP((latent,), hidden, data.shape, condition), dense_critic(data.shape, hidden, condition)
    width, depth = width or 32, depth or default_depth(*data.shape[1:])
    return (
        ConvGenerator(latent, width, data.shape, depth, condition, bounded=data.levels is not None),
        conv_critic(data.shape, width, depth, condition),
    )
