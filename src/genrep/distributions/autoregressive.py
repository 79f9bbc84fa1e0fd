"""Images one value at a time: p(x) = prod_i p(x_i | x_1 ... x_{i-1}), pixels in raster order, then their channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, DataSpec, Inference, Way
from genrep.distributions.basic import Categories, CellMixture
from genrep.nets.condition import encode_condition
from genrep.nets.raster import ChannelHead, Raster

OutputName = Literal["auto", "categorical", "mixture"]


def output_for(data: DataSpec, name: OutputName) -> Literal["categorical", "mixture"]:
    """The distribution of one value, `auto` resolved: free probabilities for up to 256 levels, else a mixture.

    >>> output_for(DataSpec((3, 32, 32), levels=65536), "auto")
    'mixture'
    """
    if data.levels is None or len(data.shape) != 3:
        raise ValueError(f"Expected images with integer levels, got data of shape {data.shape}, levels {data.levels}.")
    if name == "auto":
        return "categorical" if data.levels <= 256 else "mixture"
    return name


class Autoregressive(Conditional):
    """An exact mass over images of K levels in [-1, 1]: network (pixels) and head (channels) share the chain rule.

    categorical: K free probabilities a value. mixture: `components` logistics cut into cells, far fewer parameters
    where K is large, with means that start evenly over the range.
    """

    measure = "mass"

    def __init__(
        self,
        data: DataSpec,
        net: Raster,
        output: OutputName = "auto",
        *,
        hidden: int,
        components: int = 10,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.output, self.shape, self.levels = output_for(data, output), data.shape, data.levels or 0
        self.condition_width, self.reads_y = condition, condition > 0
        channels, outputs = data.shape[0], self.levels if self.output == "categorical" else 3 * components
        self.net, self.head = net, ChannelHead(net.features, channels, hidden, outputs)
        self.draws = (Categories if self.output == "categorical" else CellMixture).draws
        bias = self.head.out.bias
        if self.output == "mixture":
            assert bias is not None
            with torch.no_grad():
                bias.unflatten(0, (channels, 3, components))[:, 1] += torch.linspace(-1, 1, components)

    def values(self, features: Tensor, x: Tensor) -> Categories | CellMixture:
        """p(x_i | earlier values) of every value, given features of the pixels and x, from which masks read less."""
        out = self.head(features, x)
        out = out.to(torch.promote_types(out.dtype, torch.float32))  # probabilities never in half precision
        if self.output == "categorical":
            return Categories(out)
        weight, mean, log_scale = out.chunk(3, -1)
        narrowest = -math.log(self.levels - 1) - 2  # already all of a level's mass within its cell
        return CellMixture(weight, mean, (log_scale - 2).clamp(narrowest, 4), self.levels)

    def forward(self, *, y: Tensor | None = None, cache: bool = True) -> Images:
        """`cache`: keep what earlier pixels computed; without it the network runs on the whole image for each pixel."""
        return Images(self, y, cache=cache)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """exact: log P(x), one evaluation of the network."""
        return {"exact": Way(lambda x, y: self(y=y).log_prob(x), "exact", "mass")}

    def evaluations(self, *, cache: bool = True) -> int:
        """One step per pixel; with the cache a step is a column of the network, without it the whole network."""
        return self.shape[1] * self.shape[2]


class Images(Distribution):
    """The distribution over whole images of an autoregressive part, batch shape () or that of the condition."""

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(self, part: Autoregressive, y: Tensor | None, *, cache: bool) -> None:
        super().__init__(torch.Size(() if y is None else (len(y),)), torch.Size(part.shape), validate_args=False)
        self.part, self.y, self.cache = part, y, cache

    def _condition(self, lead: torch.Size, like: Tensor) -> Tensor | None:
        """The encoded condition of each image, (n, width), `lead` being (*sample, *batch)."""
        if not self.part.reads_y:
            return None
        y = (
            self.y
            if self.y is None or len(lead) == 1
            else self.y.expand(*lead, *self.y.shape[1:]).flatten(0, -self.y.ndim)
        )
        return encode_condition(y, self.part.condition_width, like).to(like)

    def log_prob(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.ndim - len(self.event_shape)]
        x = value.reshape(-1, *self.event_shape)
        part = self.part
        return part.values(part.net(x, self._condition(lead, x)), x).log_prob(x).reshape(lead)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        lead = torch.Size((*sample_shape, *self.batch_shape))
        like = next(self.part.parameters())
        with torch.no_grad():
            u = torch.rand(lead.numel(), *self.event_shape, self.part.draws, dtype=like.dtype, device=like.device)
            return self.invert(u, self._condition(lead, u)).reshape(*lead, *self.event_shape)

    def invert(self, u: Tensor, condition: Tensor | None) -> Tensor:
        """Images (n, C, H, W) from uniform numbers (n, C, H, W, draws), value by value in the order of the chain."""
        n, channels, height, width, _ = u.shape
        x = torch.zeros(u.shape[:-1], dtype=u.dtype, device=u.device)
        step = self.part.net.walk(n, height, width, condition) if self.cache else None
        pixel = x.new_zeros(n, channels, 1, 1)
        for i in range(height):
            for j in range(width):
                features = self.part.net(x, condition)[:, :, i, j] if step is None else step(pixel[:, :, 0, 0])
                pixel = x[:, :, i : i + 1, j : j + 1]
                for c in range(channels):
                    values = self.part.values(features[:, :, None, None], pixel)
                    pixel[:, c] = values.draw(u[:, :, i : i + 1, j : j + 1])[:, c]
        return x
