"""What the end-to-end Sinkhorn autoencoder adds to matching: sharper reconstructions and codes that differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.contracts import Model, Terms
from genrep.nets.pyramid import laplacian
from genrep.objectives.autoencoding import Coded, Penalty


class Pyramid(Penalty):
    """sum_j 2^(2 j) |L^j(x) - L^j(x')|_1, (B,), with L^j level j of the Laplacian pyramid and x' the mean of p(x | z).

    Bojanowski et al. (2018), eq. 3; Deja et al. (2020) take it beside the squared error.
    """

    def __init__(self, weight: float, levels: int) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"Expected pyramid >= 0, got {weight}.")
        self.terms, self.levels = {"pyramid": weight}, levels

    def forward(self, model: Model, coded: Coded) -> Terms:
        both = zip(laplacian(coded.x, self.levels), laplacian(coded.p.mean, self.levels), strict=True)
        return {
            "pyramid": torch.stack([4**j * (a - b).abs().flatten(1).sum(1) for j, (a, b) in enumerate(both)]).sum(0)
        }


def diversity(z: Tensor, threshold: float) -> Tensor:
    """Mean over pairs i != j of cos(z_i, z_j)^2 where |cos| >= threshold, (); of one code, zero.

    Deja et al. (2020), after Ayinde et al. (2019), take the sum, which grows with the batch: their weight is this
    one over N (N - 1).
    """
    unit = F.normalize(z.flatten(1), dim=1)
    cosine = unit @ unit.T
    apart = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    alike = apart & (cosine.detach().abs() >= threshold)
    return (cosine.square() * alike).sum() / max(len(z) * (len(z) - 1), 1)


class Diversity(Penalty):
    """`diversity` of the codes of a batch: similar codes of different examples are driven apart."""

    def __init__(self, weight: float, threshold: float) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"Expected diversity >= 0, got {weight}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected threshold in [0, 1], a cosine, got {threshold}.")
        self.terms, self.threshold = {"diversity": weight}, threshold

    def forward(self, model: Model, coded: Coded) -> Terms:
        return {"diversity": diversity(coded.z, self.threshold)}
