"""The masked autoencoder for distribution estimation."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoregressive import Autoregressive, OutputName, output_for, outputs_of
from genrep.distributions.domains import domain_for
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.made import MADE
from genrep.objectives.likelihood import NLL


@recipe(family="autoregressive", reference="Germain et al. (2015), arXiv:1502.03509")
def made(
    data: DataSpec,
    *,
    output: OutputName = "auto",
    width: int = 512,
    depth: int = 2,
    components: int = 5,
    conditional: bool = False,
) -> Model:
    """Masked autoencoder: P(x) = prod_k P(x_k | x_1 ... x_{k-1}) from one dense network with masked weights.

    For vectors of categories, whose levels enter as categories, and for images, whose levels enter as numbers.

    Args:
        output: p(x_k | ...): categorical (a probability for each level) or mixture (of discretised logistics); auto:
            categorical for vectors and up to 32 levels.
        width: Hidden units of each layer.
        depth: Hidden layers.
        components: Logistics of the mixture.
        conditional: Every unit reads the label or condition.
    """
    chosen = output_for(data, output)
    if min(width, depth, components) < 1:
        raise ValueError(f"Expected width, depth, components >= 1, got {width, depth, components}.")
    condition = condition_width(data, conditional)
    outputs = outputs_of(data, chosen, components)
    assert data.levels is not None
    image = len(data.shape) == 3
    chain = MADE(data.shape, data.levels, width, depth, outputs, condition, categories=not image)
    return Model(
        data,
        Autoregressive(data, chain, chosen, condition),
        Inference(),
        NLL(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
