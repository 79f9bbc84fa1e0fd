"""Cold diffusion."""

from __future__ import annotations

from typing import Literal

from genrep.contracts import DataSpec, Inference, Model
from genrep.distributions.cold import Blur, Cold, ColdProcess, Masking, Restorer, VectorMasking
from genrep.distributions.diffusion import NetworkFeatures
from genrep.distributions.domains import domain_for
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.denoiser import denoising_network
from genrep.objectives.restoration import Restoration


@recipe(family="diffusion", reference="Bansal et al. (2022), arXiv:2208.09392")
def cold_diffusion(
    data: DataSpec,
    *,
    degradation: Literal["masking", "blur"] = "masking",
    timesteps: int = 50,
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    conditional: bool = False,
) -> Model:
    """Cold diffusion: the data are degraded by a function without noise of its own, and a network restores them.

    Samples begin at what is left when everything is degraded, and are restored step by step. A U-Net for images, else a
    residual network. Restorations are averages, so samples are smoother than those of ddpm.

    Args:
        degradation: masking: pixels (or columns) are replaced by fixed noise in random order; blur: images get smooth,
            and samples begin at their lowest frequencies, drawn from a fitted Gaussian.
        timesteps: Steps of sampling; training costs the same for any.
        width: Channels of the first level, or units of a dense layer; 0: 32 or 256.
        multipliers: Channels of each level in units of width; empty: 1, 2, 2, ... down to a side of 4 to 7.
        blocks: Residual blocks per level, or in all for vectors; 0: 1 or 4.
        attention: Levels whose shorter side is at most this attend over their pixels; 0: none.
        heads: Of the attention; 0: one for every 32 channels.
        dropout: Probability, in the residual blocks.
        conditional: The network reads the label or condition.
    """
    image = len(data.shape) == 3
    if degradation == "blur" and not image:
        raise ValueError(f"degradation=blur needs images (C, H, W), this data has shape {data.shape}; choose masking.")
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
    degrade = Blur(data.shape) if degradation == "blur" else Masking() if image else VectorMasking()
    return Model(
        data,
        Cold(Restorer(net, condition), degrade, data.shape, timesteps),
        Inference(process=ColdProcess(degrade), features=NetworkFeatures(net, condition)),
        Restoration(),
        domain=domain_for(data),
        training={"lr": 1e-3, "ema": 0.999},
    )
