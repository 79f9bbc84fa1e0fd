"""The causal transformer over pixels."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoregressive import Autoregressive, OutputName, output_for, outputs_of
from genrep.distributions.domains import domain_for
from genrep.models import recipe
from genrep.nets.causal_attention import PixelTransformer
from genrep.nets.chain import Pixelwise
from genrep.nets.condition import condition_width
from genrep.objectives.likelihood import NLL


@recipe(
    family="autoregressive",
    reference="Parmar et al. (2018), arXiv:1802.05751; Child et al. (2019), arXiv:1904.10509 (strided); "
    "Chen et al. (2020), image GPT (full)",
)
def pixel_transformer(
    data: DataSpec,
    *,
    attention: Literal["auto", "full", "local", "strided"] = "auto",
    output: OutputName = "auto",
    width: int = 64,
    depth: int = 6,
    heads: int = 4,
    components: int = 10,
    conditional: bool = False,
) -> Model:
    """Causal transformer: P(x) = prod_i P(x_i | x_1 ... x_{i-1}), a position for each pixel, or each value of a vector.

    Samples keep the keys and values of the positions before: one position of the network for each.

    Args:
        attention: full (all earlier positions), local (the last row's worth) or strided (local and own column in turn,
            which together reach everything); auto: strided for images of more than 256 pixels, else full.
        output: p(x_i | ...): categorical (a probability for each level) or mixture (of discretised logistics); auto:
            categorical up to 32 levels.
        width: Channels of every position.
        depth: Layers.
        heads: Heads of the attention; they divide the width.
        components: Logistics of the mixture.
        conditional: Every position reads the label or condition.
    """
    chosen = output_for(data, output)
    if min(width, depth, heads, components) < 1 or width % heads:
        sizes = f"width={width}, depth={depth}, heads={heads}, components={components}"
        raise ValueError(f"Expected sizes of at least 1 and heads that divide the width, got {sizes}.")
    if len(data.shape) not in (1, 3):
        raise ValueError(f"Expected images (C, H, W) or vectors (D,), got data of shape {data.shape}.")
    image = len(data.shape) == 3
    if not image and attention in ("local", "strided"):
        raise ValueError(f"attention={attention} needs images; vectors take full or auto.")
    if attention == "auto":
        attention = "strided" if image and data.shape[1] * data.shape[2] > 256 else "full"
    size = data.shape if image else (1, 1, *data.shape)
    condition = condition_width(data, conditional)
    assert data.levels is not None
    net = PixelTransformer((size[0], size[1], size[2]), data.levels, width, depth, heads, attention, condition)
    chain = Pixelwise(data.shape, net, 2 * width, outputs_of(data, chosen, components))
    return Model(
        data,
        Autoregressive(data, chain, chosen, condition),
        Inference(),
        NLL(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
