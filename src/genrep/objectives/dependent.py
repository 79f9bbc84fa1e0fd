"""Maximum likelihood of rows that depend on each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genrep.contracts import Batch, Model, Objective, Terms
from genrep.distributions.flows.flow import Flow


class Dependent(Objective):
    """Joint likelihood of rows whose latents are correlated: z_j ~ N(0, R) across rows, for each of its D values.

    -log p(x_1 .. x_n) = 1/2 sum_j z_j' R^-1 z_j + D/2 log |R| + n D/2 log 2 pi - sum_i log |det df/dx_i|, z = f(x)
    (Kirchler, Lippert & Kloft, 2022). R has `correlation` between rows with the same label, 1 on the diagonal, 0
    elsewhere; rows of unknown label (-1) are independent. The rows of a batch have the marginal of the joint law, so
    that each batch is a likelihood of its own; large batches, or all rows, use more of the dependence. `nll` is
    per row. The margin of a new row is the flow's own density.
    """

    terms = {"nll": 1.0}

    def __init__(self, correlation: float) -> None:
        super().__init__(learns=("generative",))
        if not 0 <= correlation < 1:
            raise ValueError(f"Expected a correlation in [0, 1), got {correlation}.")
        self.correlation = correlation

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        flow = model.generative
        if not isinstance(flow, Flow) or not model.data.classes:
            raise ValueError("Dependent rows need a flow on data with labels, which say what rows belong together.")
        assert batch.y is not None
        inside, slope = model.domain.continuous(batch.x)
        z, log_det = flow.inward(inside, y=batch.y if flow.reads_y else None)
        joint = matrix_normal(z.flatten(1), self.covariance(batch.y, z)) + (log_det + slope).sum()
        return {"nll": -joint / len(z)}

    def covariance(self, label: Tensor, like: Tensor) -> Tensor:
        """R, (n, n)."""
        same = (label[:, None] == label[None, :]) & (label >= 0)[:, None]
        eye = torch.eye(len(label), dtype=like.dtype, device=like.device)
        return torch.where(eye > 0, eye, self.correlation * same.to(like.dtype))


def matrix_normal(z: Tensor, rows: Tensor) -> Tensor:
    """log density of z (n, D), columns independent N(0, rows), rows (n, n) positive definite; ()."""
    with torch.autocast(z.device.type, enabled=False):
        factor = torch.linalg.cholesky(rows)
        white = torch.linalg.solve_triangular(factor, z.to(rows.dtype), upper=False)
    n, d = z.shape
    return -0.5 * white.square().sum() - d * factor.diagonal().log().sum() - n * d / 2 * math.log(2 * math.pi)
