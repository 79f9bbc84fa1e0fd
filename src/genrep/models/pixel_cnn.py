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
from genrep.nets.multiscale import MultiscaleNetwork
from genrep.objectives.likelihood import NLL


@recipe(
    family="autoregressive",
    reference="van den Oord et al. (2016), arXiv:1601.06759 (plain), arXiv:1606.05328 (gated); "
    "Salimans et al. (2017), arXiv:1701.05517 (mixture)",
)
def pixel_cnn(
    data: DataSpec,
    *,
    variant: Literal["gated", "plain", "multiscale"] = "gated",
    output: OutputName = "auto",
    width: int = 32,
    depth: int = 0,
    kernel: int = 3,
    components: int = 10,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """PixelCNN: P(x) = prod_i P(x_i | x_1 ... x_{i-1}), every factor computed by one causal convolutional network.

    Pixels follow each other in raster order, channels inside a pixel too. Samples cost one step a pixel, each of them
    only a column of the network.

    Args:
        variant: gated (two stacks, no blind spot), multiscale (the same layers at three resolutions with shortcuts, as
            PixelCNN++ arranges them) or plain (masked convolutions, with a blind spot).
        output: p(x_i | ...): categorical (a probability for each level) or mixture (of discretised logistics); auto:
            categorical up to 32 levels.
        width: Channels of the network.
        depth: Layers, or for multiscale those of each resolution, down and up; 0: 6 for images of up to 256 pixels, 10
            above, 2 for multiscale.
        kernel: Side of the convolutions after the first, whose side is 7; odd.
        components: Logistics of the mixture.
        dropout: Probability that a unit inside a layer is dropped in training; for small data sets.
        conditional: Every layer reads the label or condition.
    """
    chosen = output_for(data, output)
    if len(data.shape) != 3 or min(data.shape[1:]) < 8:
        raise ValueError(f"Expected images (C, H, W) with sides of at least 8, got data of shape {data.shape}.")
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"Expected an odd kernel of at least 3, got {kernel}.")
    if min(width, components) < 1 or depth < 0:
        raise ValueError(
            f"Expected width, components >= 1, depth >= 0 (0: fits the data), got {width, components, depth}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"Expected 0 <= dropout < 1, got {dropout}.")
    small = data.shape[1] * data.shape[2] <= 256
    condition = condition_width(data, conditional)
    if variant == "multiscale":
        halvings = 1 if min(data.shape[1:]) < 16 else 2
        net = MultiscaleNetwork(data.shape[0], width, depth or 2, kernel, condition, halvings=halvings, dropout=dropout)
    else:
        network = {"gated": GatedNetwork, "plain": PlainNetwork}[variant]
        net = network(data.shape[0], width, depth or (6 if small else 10), kernel, condition, dropout=dropout)
    chain = Pixelwise(data.shape, net, 2 * width, outputs_of(data, chosen, components))
    return Model(
        data,
        Autoregressive(data, chain, chosen, condition),
        Inference(),
        NLL(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
