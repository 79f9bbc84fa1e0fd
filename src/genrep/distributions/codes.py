"""Discrete latents as vectors of a codebook: posteriors over them, their prior, and the view of them as integers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.contracts import Conditional, DataSpec, Domain
from genrep.distributions.autoregressive import Autoregressive
from genrep.distributions.basic import Event, Point
from genrep.nets.chain import Pixelwise
from genrep.nets.codebook import Codebook, Embedded
from genrep.nets.made import MADE
from genrep.nets.masked import GatedNetwork


class Entries(Domain):
    """Vectors z (B, D, *grid) as integers: codes (B, 1, h, w) of a map, (B, L) of a row; outward looks them up."""

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.codebook = codebook

    def inward(self, x: Tensor) -> Tensor:
        codes = self.codebook.codes(x)
        return codes.unsqueeze(1) if codes.ndim == 3 else codes

    def outward(self, x: Tensor) -> Tensor:
        return self.codebook.look_up(x.long().squeeze(1) if x.ndim == 4 else x.long())


class Quantised(Point):
    """All mass at the entries nearest to `before`, (B, D, *grid) both; a gradient passes straight through to `before`.

    Van den Oord et al. (2017), section 3.2.
    """

    def __init__(self, before: Tensor, entries: Tensor, codes: Tensor) -> None:
        super().__init__(entries.detach() + (before - before.detach()))
        self.before, self.entries, self.codes = before, entries, codes

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero: the logarithm of all the mass there is; at other entries, which have none, it is not asked."""
        return self.before.new_zeros(len(self.before))


class Quantiser(Conditional):
    """q(z | x): the entries nearest to net(x), which has outputs (B, D, *grid); in train mode the codebook learns.

    `positions`: of the grid; a codebook with more entries than all training examples have positions is refused.
    """

    measure = "mass"

    def __init__(self, net: nn.Module, codebook: Codebook, positions: int = 1) -> None:
        super().__init__()
        self.net, self.codebook, self.fewest = net, codebook, math.ceil(codebook.size / positions)

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Quantised:
        before = self.net(x).float()
        if self.training:
            self.codebook.observe(before)
        codes = self.codebook.codes(before)
        return Quantised(before, self.codebook.look_up(codes), codes)


class Chosen(Event):
    """Independent entries of a codebook, one for each position: logits (B, K, *grid), z (B, D, *grid).

    With a `temperature` T, rsample gives sum_k w_k e_k with w = softmax((logits + Gumbel noise) / T), differentiable
    and biased (Jang et al., 2017, eq. 2); `hard` rounds w and keeps its gradient. Without one, it gives entries.
    """

    has_rsample = True

    def __init__(self, logits: Tensor, codebook: Codebook, temperature: Tensor | None = None, *, hard: bool) -> None:
        shape = (len(logits), codebook.vectors.shape[1], *logits.shape[2:])
        super().__init__(codebook.vectors.new_empty(()).expand(shape), batched=True)
        self.logits, self.codebook, self.temperature, self.hard = logits, codebook, temperature, hard

    @property
    def codes(self) -> Tensor:
        """The likeliest entries, (B, *grid)."""
        return self.logits.argmax(1)

    @property
    def mean(self) -> Tensor:
        return self._mix(self.logits.softmax(1))

    def _mix(self, weights: Tensor) -> Tensor:
        return (weights.movedim(1, -1) @ self.codebook.vectors).movedim(-1, 1)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        logits = self.logits.expand(*sample_shape, *self.logits.shape).movedim(len(sample_shape) + 1, -1)
        if self.temperature is None:
            codes = torch.distributions.Categorical(logits=logits, validate_args=False).sample()
            return F.embedding(codes, self.codebook.vectors).movedim(-1, len(sample_shape) + 1)
        weights = F.gumbel_softmax(logits, self.temperature, self.hard)  # pyright: ignore[reportArgumentType]
        return (weights @ self.codebook.vectors).movedim(-1, len(sample_shape) + 1)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return Chosen(self.logits, self.codebook, hard=True).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of entries, (*sample, B, D, *grid) -> (*sample, B); other vectors count as the nearest entry."""
        lead = value.shape[: value.ndim - self.logits.ndim + 1]
        codes = self.codebook.codes(value.flatten(0, len(lead) - 1)).unflatten(0, lead)
        logits = self.logits.log_softmax(1).movedim(1, -1).expand(*codes.shape, -1)
        return logits.gather(-1, codes.unsqueeze(-1)).flatten(len(lead)).sum(-1)

    def rate_to_uniform(self) -> Tensor:
        """KL(q || uniform over the entries) = sum over positions of log K - entropy, (B,) nats."""
        log = self.logits.log_softmax(1)
        return ((log.exp() * log).sum(1) + math.log(self.codebook.size)).flatten(1).sum(1)


class GumbelHead(Conditional):
    """q(z | x) over the entries of a codebook from net(x) (B, K, *grid), relaxed in train mode.

    The temperature falls geometrically from `warmest` to `coldest` over `annealing` passes in train mode, which are
    counted in a buffer.
    """

    measure = "mass"
    passes: Tensor

    def __init__(
        self,
        net: nn.Module,
        codebook: Codebook,
        *,
        warmest: float = 1.0,
        coldest: float = 0.5,
        annealing: int = 1000,
        hard: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < coldest <= warmest:
            raise ValueError(f"Expected temperatures 0 < coldest <= warmest, got {coldest} and {warmest}.")
        if annealing < 1:
            raise ValueError(f"Expected annealing >= 1 update, got {annealing}.")
        self.net, self.codebook, self.hard = net, codebook, hard
        self.warmest, self.coldest, self.annealing = warmest, coldest, annealing
        self.register_buffer("passes", torch.zeros(()))

    @property
    def temperature(self) -> Tensor:
        done = (self.passes / self.annealing).clamp_max(1)
        return self.warmest * (self.coldest / self.warmest) ** done

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Chosen:
        logits = self.net(x).float()
        if not self.training:
            return Chosen(logits, self.codebook, hard=True)
        temperature = self.temperature
        self.passes += 1
        return Chosen(logits, self.codebook, temperature, hard=self.hard)


def code_spec(data: DataSpec, grid: tuple[int, ...], size: int) -> DataSpec:
    """What the codes of a grid look like as data, with the labels or condition of the outer data."""
    shape = (1, *grid) if len(grid) == 2 else grid
    return DataSpec(shape, levels=size, classes=data.classes, condition=data.condition)


def code_prior(codes: DataSpec, *, width: int, depth: int, condition: int = 0, dropout: float = 0.0) -> Autoregressive:
    """p(codes): a gated PixelCNN over the embedded codes of a map; a masked dense network over those of a row.

    `width`: channels, or an eighth of the units; `depth`: layers.
    """
    if width < 1 or depth < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"Expected prior_width, prior_depth >= 1 and prior_dropout in [0, 1), got {width, depth, dropout}."
        )
    assert codes.levels is not None
    if len(codes.shape) == 1:
        chain = MADE(codes.shape, codes.levels, 8 * width, depth, codes.levels, condition)
        return Autoregressive(codes, chain, "categorical", condition)
    stem = min(7, 2 * (min(codes.shape[1:]) // 2) + 1)
    net = GatedNetwork(width, width, depth, 3, condition, dropout=dropout, stem=stem)
    chain = Pixelwise(codes.shape, Embedded(net, codes.levels, width), 2 * width, codes.levels)
    return Autoregressive(codes, chain, "categorical", condition)
