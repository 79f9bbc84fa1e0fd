"""Flow matching."""

from __future__ import annotations

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.diffusion import NetworkFeatures
from genrep.distributions.domains import domain_for
from genrep.distributions.velocity import Straight, Velocity, VelocityFlow
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.flow_matching import CouplingName, FlowMatching


@recipe(
    family="diffusion",
    reference="Lipman et al. (2023), arXiv:2210.02747; Tong et al. (2024), arXiv:2302.00482, for the optimal coupling",
)
def flow_matching(
    data: DataSpec,
    *,
    coupling: CouplingName = "independent",
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """Flow matching: x_1 ~ N(0, I) is carried to the data by dx/dt = v(x, t), t from 1 to 0.

    v is the regression of eps - x on x_t = (1 - t) x + t eps. Its flow has a density, so that log p(x) can be computed
    by solving the equation backwards. Data with levels are dequantised. A U-Net for images, else a residual network.

    Args:
        coupling: Of noise and data in a batch: independent, or optimal (least squared distance), which straightens the
            paths, so that fewer evaluations suffice.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        heads: Of the attention; 0: one for every 32 channels.
        dropout: Probability, in the residual blocks.
        conditional: The network reads the label or condition.
    """
    if conditional and coupling == "optimal":
        raise ValueError("coupling=optimal would tie the noise to the condition; choose independent, or no condition.")
    condition = condition_width(data, conditional)
    net = denoising_network(
        data,
        1,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        dropout=dropout,
        condition=condition,
    )
    return Model(
        data,
        VelocityFlow(Velocity(net, condition), data.shape),
        Inference(process=Straight(), features=NetworkFeatures(net, condition)),
        FlowMatching(coupling),
        domain=domain_for(data),
        training={"lr": 1e-3, "ema": 0.999},
    )
