"""The PixelCNN, plain and gated."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoregressive import Autoregressive, OutputName, output_for, outputs_of
from genrep.distributions.domains import domain_for
from genrep.models import recipe
from genrep.nets.chain import Pixelwise
from genrep.nets.condition import condition_width
from genrep.nets.masked import GatedNetwork, PlainNetwork
from genrep.objectives.likelihood import NLL


@recipe(
    family="autoregressive",
    reference="van den Oord et al. (2016), arXiv:1601.06759 (plain), arXiv:1606.05328 (gated); "
    "Salimans et al. (2017), arXiv:1701.05517 (mixture)",
)
def pixel_cnn(
    data: DataSpec,
    *,
    variant: Literal["gated", "plain"] = "gated",
    output: OutputName = "auto",
    width: int = 0,
    depth: int = 0,
    kernel: int = 3,
    components: int = 10,
    conditional: bool = False,
) -> Model:
    """PixelCNN: P(x) = prod_i P(x_i | x_1 ... x_{i-1}), every factor computed by one causal convolutional network.

    Pixels follow each other in raster order, channels inside a pixel too. Samples cost one step a pixel, each of them
    only a column of the network.

    Args:
        variant: gated (two stacks, no blind spot) or plain (masked convolutions, with one).
        output: p(x_i | ...): categorical (a probability for each level) or mixture (of discretised logistics); auto:
            categorical up to 256 levels.
        width: Channels of the network; 0: 64 for images of up to 256 pixels, 32 above.
        depth: Layers; 0: 6 for images of up to 256 pixels, 10 above.
        kernel: Side of the convolutions after the first, whose side is 7; odd.
        components: Logistics of the mixture.
        conditional: Every layer reads the label or condition.
    """
    chosen = output_for(data, output)
    if len(data.shape) != 3 or min(data.shape[1:]) < 8:
        raise ValueError(f"Expected images (C, H, W) with sides of at least 8, got data of shape {data.shape}.")
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"Expected an odd kernel of at least 3, got {kernel}.")
    if min(width, depth) < 0 or components < 1:
        raise ValueError(
            f"Expected width, depth >= 0 (0: fits the data), components >= 1, got {width, depth, components}."
        )
    small = data.shape[1] * data.shape[2] <= 256
    width, depth = width or (64 if small else 32), depth or (6 if small else 10)
    condition = condition_width(data, conditional)
    network = {"gated": GatedNetwork, "plain": PlainNetwork}[variant]
    net = network(data.shape[0], width, depth, kernel, condition)
    chain = Pixelwise(data.shape, net, 2 * width, outputs_of(data, chosen, components))
    return Model(
        data,
        Autoregressive(data, chain, chosen, condition),
        Inference(),
        NLL(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
