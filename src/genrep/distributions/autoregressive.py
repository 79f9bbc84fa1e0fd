"""Examples one value at a time: p(x) = prod_k p(x_k | x_1 ... x_{k-1})."""

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
from genrep.nets.chain import Chain, as_example, in_order
from genrep.nets.condition import encode_condition
from genrep.nets.levels import level_value

OutputName = Literal["auto", "categorical", "mixture"]
MOST_FREE = 32  # levels of a picture for which free probabilities are the default


def output_for(data: DataSpec, name: OutputName) -> Literal["categorical", "mixture"]:
    """The distribution of one value, `auto` resolved: a mixture for images of more than 32 levels, else categorical.

    Many levels of a picture are an order, which a mixture knows from the start and free probabilities have to learn.

    >>> output_for(DataSpec((3, 32, 32), levels=256), "auto"), output_for(DataSpec((100,), levels=65), "auto")
    ('mixture', 'categorical')
    """
    if data.levels is None:
        raise ValueError(
            "Expected integer levels, got real-valued data; autoregressive flows and other densities take those."
        )
    if name == "auto":
        return "mixture" if len(data.shape) == 3 and data.levels > MOST_FREE else "categorical"
    return name


def outputs_of(data: DataSpec, output: Literal["categorical", "mixture"], components: int) -> int:
    """Parameters of the distribution of one value."""
    return 3 * components if output == "mixture" else data.levels or 0


class Autoregressive(Conditional):
    """An exact mass over examples of K levels in [-1, 1] from a network that obeys the chain rule.

    categorical: K free probabilities a value. mixture: logistics cut into cells, far fewer parameters where K is large;
    without any training their means are spread evenly over the range.
    """

    measure = "mass"

    def __init__(
        self, data: DataSpec, chain: Chain, output: Literal["categorical", "mixture"], condition: int = 0
    ) -> None:
        super().__init__()
        self.chain, self.output, self.levels = chain, output, data.levels or 0
        self.condition_width, self.reads_y = condition, condition > 0
        self.draws = (Categories if output == "categorical" else CellMixture).draws

    def values(self, parameters: Tensor) -> Categories | CellMixture:
        """The distributions of values from their parameters (B, ..., outputs)."""
        p = parameters.to(torch.promote_types(parameters.dtype, torch.float32))  # never in half precision
        if self.output == "categorical":
            return Categories(p)
        weight, mean, log_scale = p.chunk(3, -1)
        spread = torch.linspace(-1, 1, mean.shape[-1], dtype=p.dtype, device=p.device)
        narrowest = -math.log(self.levels - 1) - 2  # already all of a level's mass within its cell
        return CellMixture(weight, mean + spread, (log_scale - 2).clamp(narrowest, 4), self.levels)

    def forward(
        self, *, y: Tensor | None = None, cache: bool = True, prefix: Tensor | None = None, known: int = 0
    ) -> Sequential:
        """`cache`: keep what earlier values computed; without it the whole network runs for each of them.

        `prefix`: an example whose first `known` values, in the order of the chain, all samples keep, as levels; or one
        example per sample. The other values follow p(rest | known values).
        """
        return Sequential(self, y, cache=cache, prefix=prefix, known=known)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """exact: log P(x), one evaluation of the network."""
        return {"exact": Way(lambda x, y: self(y=y).log_prob(x), "exact", "mass")}

    def evaluations(self, **how: object) -> int:
        """One step per pixel or value; with the cache a step computes only what is new, else the whole network."""
        return self.chain.steps


class Sequential(Distribution):
    """The distribution over whole examples of an autoregressive part, batch shape () or that of the condition."""

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(
        self, part: Autoregressive, y: Tensor | None, *, cache: bool, prefix: Tensor | None, known: int
    ) -> None:
        shape, size = torch.Size(part.chain.shape), math.prod(part.chain.shape)
        super().__init__(torch.Size(() if y is None else (len(y),)), shape, validate_args=False)
        if not 0 <= known <= size or (known > 0) != (prefix is not None):
            raise ValueError(f"Expected prefix= with 0 < known <= {size} values, got known={known}, prefix {prefix}.")
        if prefix is not None:
            _check_prefix(prefix, shape, part.levels)
        self.part, self.y, self.cache, self.prefix, self.known = part, y, cache, prefix, known

    def _condition(self, lead: torch.Size, like: Tensor) -> Tensor | None:
        """The encoded condition of each example, (n, width), `lead` being (*sample, *batch)."""
        if not self.part.reads_y:
            return None
        y = self.y
        if y is not None and len(lead) > 1:
            y = y.expand(*lead, *y.shape[1:]).flatten(0, -y.ndim)
        return encode_condition(y, self.part.condition_width, like).to(like)

    def log_prob(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.ndim - len(self.event_shape)]
        x = value.reshape(-1, *self.event_shape)
        return self.part.values(self.part.chain(x, self._condition(lead, x))).log_prob(x).reshape(lead)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        lead, size = torch.Size((*sample_shape, *self.batch_shape)), self.event_shape.numel()
        like = next(self.part.parameters())
        with torch.no_grad():
            u = torch.rand(lead.numel(), size, self.part.draws, dtype=like.dtype, device=like.device)
            x = self.invert(u, self._condition(lead, u), self._known_values(u))
        return x.reshape(*lead, *self.event_shape)

    def _known_values(self, u: Tensor) -> Tensor:
        """The values that all samples keep, (n, known) in the order of the chain, inside."""
        if self.prefix is None:
            return u[:, :0, 0]
        if self.prefix.ndim > len(self.event_shape) and len(self.prefix) not in (1, len(u)):
            raise ValueError(
                f"Expected one prefix, or one for each of the {len(u)} samples drawn at a time, got {len(self.prefix)}."
            )
        prefix = self.prefix.to(u.device).expand(len(u), *self.event_shape)
        return level_value(in_order(prefix)[:, : self.known], u, self.part.levels)

    def invert(self, u: Tensor, condition: Tensor | None, known: Tensor) -> Tensor:
        """Examples (n, *x) from uniform numbers (n, D, draws), value by value, after the known ones (n, k)."""
        n, size, _ = u.shape
        part, shape = self.part, self.event_shape
        values = u.new_zeros(n, size)
        step = part.chain.walk(n, condition) if self.cache else None
        value = values[:, 0]
        for k in range(size):
            if step is not None:
                parameters = step(value)
            else:
                parameters = part.chain(as_example(values, shape), condition).movedim(1, -2).flatten(1, -2)[:, k]
            value = known[:, k] if k < known.shape[1] else part.values(parameters).draw(u[:, k])
            values[:, k] = value
        return as_example(values, shape).contiguous()


def _check_prefix(prefix: Tensor, shape: torch.Size, levels: int) -> None:
    if prefix.is_floating_point() or prefix.shape[-len(shape) :] != shape or prefix.ndim > len(shape) + 1:
        raise ValueError(
            f"Expected a prefix of integers, {tuple(shape)} or (n, ...), got {prefix.dtype} {prefix.shape}."
        )
    if int(prefix.min()) < 0 or int(prefix.max()) >= levels:
        raise ValueError(
            f"Expected levels in [0, {levels}), got a prefix with {int(prefix.min())}..{int(prefix.max())}."
        )
