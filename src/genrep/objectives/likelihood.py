"""Maximum likelihood."""

from __future__ import annotations

from genrep.contracts import Batch, Model, Objective, Terms


class NLL(Objective):
    """nll = -log p(x | y), (B,) nats of x as the data set holds it, for parts with a tractable log_prob.

    A density reads a continuous point: over integer data that is uniform dequantisation, and nll is an upper bound in
    expectation of minus the log-mass (Theis, van den Oord & Bethge, 2016, eq. 3). A mass reads the levels.
    """

    terms = {"nll": 1.0}

    def __init__(self) -> None:
        super().__init__(learns=("generative",))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if model.generative.measure == "improper":
            raise ValueError("Maximum likelihood needs a density or a mass; this generative part is improper.")
        distribution = model.generative(y=batch.y)
        if model.generative.measure == "mass":
            return {"nll": -distribution.log_prob(model.domain.inward(batch.x))}
        inside, slope = model.domain.continuous(batch.x)
        return {"nll": -(distribution.log_prob(inside) + slope)}
