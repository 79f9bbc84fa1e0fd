"""Denoising autoencoders as generators: the Markov chain of noising and denoising (Bengio et al., 2013).

x~ ~ C(x~ | x), then x ~ P(x | x~): where P is the exact posterior of the corruption C, the chain's stationary
distribution is that of the data (their theorem 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.contracts import Conditional
from genrep.distributions.latent import Ancestral


class DenoisingChain(Conditional):
    """p(x) as what the chain of corruption and reconstruction comes to.

    `corruption`: C(x~ | x). `reconstruction`: P(x | x~). The chain starts from noise of variance 1.
    """

    def __init__(self, corruption: Conditional, reconstruction: Conditional, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.corruption, self.reconstruction, self.shape = corruption, reconstruction, shape
        self.reads_y, self.measure = reconstruction.reads_y, "improper"

    def forward(self, *, y: Tensor | None = None, walks: int = 50) -> Ancestral:
        """How samples are drawn.

        Args:
            walks: Rounds of noising and denoising from pure noise; the last one ends with the mean.
        """
        self.evaluations(walks=walks)
        device = next(self.reconstruction.parameters()).device

        def draw(n: int) -> Tensor:
            noisy = torch.randn(n, *self.shape, device=device)
            for _ in range(walks - 1):
                noisy = self.corruption(self.reconstruction(noisy, y=y).sample(), y=y).sample()
            return self.reconstruction(noisy, y=y).mean

        return Ancestral(draw, None if y is None else len(y))

    def evaluations(self, *, walks: int = 50) -> int:
        if walks < 1:
            raise ValueError(f"Expected walks >= 1, got {walks}.")
        return walks
