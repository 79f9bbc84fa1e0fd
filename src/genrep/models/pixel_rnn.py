"""The pixel RNN: row LSTM and diagonal bidirectional LSTM."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.autoregressive import Autoregressive, OutputName, output_for, outputs_of
from genrep.distributions.domains import domain_for
from genrep.models import recipe
from genrep.nets.chain import Pixelwise
from genrep.nets.condition import condition_width
from genrep.nets.pixel_lstm import RecurrentName, RecurrentNetwork
from genrep.objectives.likelihood import NLL


@recipe(family="autoregressive", reference="van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv:1601.06759")
def pixel_rnn(
    data: DataSpec,
    *,
    variant: RecurrentName = "diagonal",
    output: OutputName = "auto",
    width: int = 64,
    depth: int = 3,
    components: int = 10,
    conditional: bool = False,
) -> Model:
    """Pixel RNN: P(x) = prod_i P(x_i | x_1 ... x_{i-1}), every factor computed by LSTMs that run over the image.

    Training takes as many steps as an image has diagonals (or rows), each for all its pixels. Samples keep the states.

    Args:
        variant: diagonal (two LSTMs along diagonals, which see all earlier pixels) or row (one LSTM down the rows,
            faster, which sees a triangle above the pixel).
        output: p(x_i | ...): categorical (a probability for each level) or mixture (of discretised logistics); auto:
            categorical up to 32 levels.
        width: Channels between the layers; the states have half of them.
        depth: Recurrent layers.
        components: Logistics of the mixture.
        conditional: Every layer reads the label or condition.
    """
    chosen = output_for(data, output)
    if len(data.shape) != 3:
        raise ValueError(f"Expected images (C, H, W), got data of shape {data.shape}.")
    if min(width, depth, components) < 1:
        raise ValueError(f"Expected width, depth, components >= 1, got {width, depth, components}.")
    condition = condition_width(data, conditional)
    net = RecurrentNetwork(data.shape[0], width, depth, variant, condition)
    chain = Pixelwise(data.shape, net, 2 * width, outputs_of(data, chosen, components))
    return Model(
        data,
        Autoregressive(data, chain, chosen, condition),
        Inference(),
        NLL(),
        domain=domain_for(data),
        training={"lr": 1e-3},
    )
