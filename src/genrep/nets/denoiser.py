"""Networks (x_t, t, c) -> output of the shape of x_t, chosen by the shape of the data."""

from __future__ import annotations

from genrep.contracts import DataSpec
from genrep.nets.conv import default_depth
from genrep.nets.residual import ResidualMLP
from genrep.nets.unet import UNet


def denoising_network(
    data: DataSpec,
    outputs: int,
    *,
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    condition: int = 0,
    channels_out: int = 0,
) -> UNet | ResidualMLP:
    """A network with `outputs` values for each of the data: a U-Net for images, a residual MLP otherwise.

    `width`: channels of the first level or units, 0: 32 or 256. `multipliers`: channels of the levels in units of
    width, empty: 1, 2, 2, ... down to a side of 4 to 7. `blocks`: per level, or in all for vectors, 0: 1 or 4.
    `channels_out`: of the output, 0: `outputs` times those of the data.
    """
    if min(width, blocks, attention, heads, *multipliers, 0) < 0 or 0 in multipliers:
        raise ValueError(
            "Expected width, blocks, attention and heads >= 0 (0: chosen by the data), and multipliers >= 1."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"Expected 0 <= dropout < 1, got {dropout}.")
    channels = channels_out or outputs * data.shape[0]
    if len(data.shape) == 3:
        levels = multipliers or (1, *[2] * default_depth(*data.shape[1:]))
        return UNet(
            data.shape,
            channels,
            width=width or 32,
            multipliers=levels,
            blocks=blocks or 1,
            attention=attention,
            heads=heads,
            dropout=dropout,
            condition=condition,
        )
    if multipliers:
        raise ValueError(f"multipliers needs images (C, H, W), this data has shape {data.shape}; use width and blocks.")
    return ResidualMLP(
        data.shape, channels, width=width or 256, blocks=blocks or 4, dropout=dropout, condition=condition
    )
