"""Flows: a base distribution seen through a bijection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Point
from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.nets.condition import encode_condition


class Transformed(Distribution):
    """x with f(x; c) ~ base: log p(x) = log p_base(f(x; c)) + log |det df/dx|, (B,) nats.

    `shape`: the event; `c`: (B, C), one condition for each example of the batch, or None. `batch`: B, or None where
    the batch shape is ().
    """

    has_rsample = True

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    def __init__(
        self, base: Distribution, bijection: Bijection, shape: tuple[int, ...], c: Tensor | None, batch: int | None
    ) -> None:
        super().__init__(torch.Size(() if batch is None else (batch,)), torch.Size(shape), validate_args=False)
        self.base, self.bijection, self.c = base, bijection, c

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        leading = torch.Size((*sample_shape, *self.batch_shape))
        draw = self.base.rsample if self.base.has_rsample else self.base.sample
        z = draw(torch.Size(sample_shape) if self.base.batch_shape else leading)
        x, _ = self.bijection.inverse(z.reshape(leading.numel(), *self.base.event_shape), self._conditions(leading, z))
        return x.reshape(*leading, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        leading = value.shape[: value.ndim - len(self.event_shape)]
        if value.shape[len(leading) :] != self.event_shape:
            raise ValueError(f"Expected values of shape (..., {tuple(self.event_shape)}), got {tuple(value.shape)}.")
        x = value.reshape(leading.numel(), *self.event_shape)
        z, log_det = self.bijection(x, self._conditions(leading, x))
        return self.base.log_prob(z.reshape(*leading, *self.base.event_shape)) + log_det.reshape(leading)

    def _conditions(self, leading: torch.Size, like: Tensor) -> Tensor | None:
        if self.c is None:
            return None
        width = self.c.shape[-1]
        return self.c.to(like.dtype).expand(*leading, width).reshape(leading.numel(), width)


class Flow(Conditional):
    """p(x | y) = p_base(f(x; y)) |det df/dx| with a bijection f; exact density, samples by its inverse.

    `shape`: the event of x; `condition`: the width of y, 0 if unread.
    """

    def __init__(self, base: Conditional, bijection: Bijection, shape: tuple[int, ...], condition: int = 0) -> None:
        super().__init__()
        self.base, self.bijection, self.shape = base, bijection, shape
        self.condition_width, self.reads_y = condition, condition > 0

    def forward(self, *, y: Tensor | None = None) -> Transformed:
        c = self._encoded(y, y if y is not None else next(self.parameters()).flatten()[:1])
        return Transformed(self.base(), self.bijection, self.shape, c, None if y is None else len(y))

    def likelihood(self, z: Tensor, *, y: Tensor | None = None) -> Point:
        """The point x with f(x; y) = z: (B, *z) -> (B, *x)."""
        return Point(self.bijection.inverse(z, self._encoded(y, z))[0])

    def inward(self, x: Tensor, *, y: Tensor | None = None) -> Mapped:
        """f(x; y) and its log-determinant."""
        return self.bijection(x, self._encoded(y, x))

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """exact: the change of variables; estimate, where the log-determinant of some layer is one."""
        exact = all(layer.exact for layer in self.bijection.modules() if isinstance(layer, Bijection))
        kind = "exact" if exact else "estimate"
        return {kind: Way(lambda x, y: self(y=y).log_prob(x), kind, "density")}

    def evaluations(self, **how: Any) -> int:
        """Passes of its networks: one, or for an inverse by iteration the most that any layer took last time."""
        return max(layer.passes for layer in self.bijection.modules() if isinstance(layer, Bijection))

    def _encoded(self, y: Tensor | None, like: Tensor) -> Tensor | None:
        if not self.reads_y:
            return None
        c = encode_condition(y, self.condition_width, like)
        if c.shape[1] != self.condition_width:
            raise ValueError(f"Expected a condition of width {self.condition_width}, got {tuple(c.shape)}.")
        return c.to(like.dtype) if like.is_floating_point() else c


class Inverse(Conditional):
    """q(z | x, y): all mass at z = f(x; y), the exact inverse of sampling."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow, self.reads_y = flow, flow.reads_y

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Point:
        return Point(self.flow.inward(x, y=y)[0])
