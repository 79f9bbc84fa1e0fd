"""From the latents of a band to a space that all bands share, and the binary codes that tell bands apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.nets.mlp import kaiming


def band_codes(bands: int) -> Tensor:
    """A code of n bits for each band, (bands, n), with n the fewest that give every band a code of its own.

    Band i has the bits of 9 i mod 2^n, the lowest first, as -1 and 1; 9 is odd, so i -> 9 i is one to one.

    >>> band_codes(3).tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]
    """
    if bands < 1:
        raise ValueError(f"Expected at least one band, got {bands}.")
    n = max(1, (bands - 1).bit_length())
    number = 9 * torch.arange(bands) % 2**n
    return 2.0 * (number[:, None] >> torch.arange(n) & 1) - 1.0


class Translator(nn.Module):
    """t(lambda, code) -> z: (B, C + D + K), C normals, D bits, K digits of the band's code, -> (B, aligned).

    Bits and code are read by small networks of their own first; all that is joined goes through one hidden layer.
    Reference: Deja et al. (2022), "Multiband VAE", and its appendix, there with leaky ReLU.
    """

    def __init__(self, latent: int, binary: int, digits: int, aligned: int) -> None:
        super().__init__()
        self.sizes = (latent, binary, digits)
        self.bits = nn.Sequential(nn.Linear(binary, 8), nn.SiLU(), nn.Linear(8, 12)) if binary else None
        self.code = nn.Sequential(nn.Linear(digits, 18), nn.SiLU(), nn.Linear(18, 12))
        width = latent + 12 + (12 if binary else 0)
        self.joined = nn.Sequential(nn.Linear(width, aligned // 2), nn.SiLU(), nn.Linear(aligned // 2, aligned))
        kaiming(self.modules())  # or z hardly depends on lambda at first, and the KL divergence closes most latents

    def forward(self, x: Tensor) -> Tensor:
        normal, bits, code = x.split(self.sizes, 1)
        read = [normal, self.code(code)] if self.bits is None else [normal, self.bits(bits), self.code(code)]
        return self.joined(torch.cat(read, 1))


class Translated(nn.Module):
    """decoder(translator(lambda, code)): what a likelihood of a band's latents is made of."""

    def __init__(self, translator: Translator, decoder: nn.Module) -> None:
        super().__init__()
        self.translator, self.decoder = translator, decoder

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.decoder(self.translator(x), c)
