"""Quadratic penalties on how far weights move, and the importances that weigh them.

L(theta) + weight / 2 sum_i S_i (theta_i - a_i)^2, with importances S and anchors a of all parameters of the generative
and the inference part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genrep.contracts import Batch, Data, Model, Objective, Terms, Unsupported


def parameters(model: Model) -> list[nn.Parameter]:
    """Those of generative and inference part, each once, in a fixed order."""
    return [p for name, p in model.named_parameters() if not name.startswith("objectives.")]


def check_one_player(model: Model, strategy: str) -> None:
    """Unsupported for models whose parts are trained against each other: no single loss says what a weight is worth."""
    for objective in model.objectives:
        turns = cast(Objective, objective).turns
        if turns != ("model",):
            raise Unsupported(f"Strategy {strategy} needs a model of one player, this one has {', '.join(set(turns))}.")


def weight_for(model: Model, given: float | None, *, classifier: float, other: float) -> float:
    """The weight given, or what suits the model: a cross-entropy has smaller gradients than nats of whole examples."""
    if given is not None:
        return given
    return other if model.generative.can_sample else classifier


class Slots(nn.Module):
    """A tensor for each parameter, of its shape."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        super().__init__()
        for i, p in enumerate(like):
            self.register_buffer(str(i), torch.zeros_like(p))

    @property
    def tensors(self) -> list[Tensor]:
        return list(self.buffers())

    @torch.no_grad()
    def set(self, values: Sequence[Tensor]) -> None:
        for mine, value in zip(self.tensors, values, strict=True):
            mine.copy_(value)


class Quadratic(Objective):
    """The penalty weight / 2 sum S (theta - a)^2; nothing while S is zero."""

    def __init__(self, model: Model, weight: float) -> None:
        if not weight > 0:
            raise ValueError(f"Expected weight > 0, got {weight}.")
        self.terms = {"penalty": weight}
        super().__init__(learns=())
        self.importance, self.anchor = Slots(parameters(model)), Slots(parameters(model))

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        rows = zip(parameters(model), self.importance.tensors, self.anchor.tensors, strict=True)
        return {"penalty": 0.5 * torch.stack([(s * (p - a).square()).sum() for p, s, a in rows]).sum()}

    def gradients(self, model: Model) -> list[Tensor]:
        """weight S (theta - a), what the penalty adds to the gradient."""
        rows = zip(parameters(model), self.importance.tensors, self.anchor.tensors, strict=True)
        return [self.weights["penalty"] * s * (p.detach() - a) for p, s, a in rows]

    @torch.no_grad()
    def add(self, model: Model, importance: Sequence[Tensor]) -> None:
        """One more penalty, around the weights as they are: exactly the sum of both, but for a constant.

        S (x - a)^2 + F (x - w)^2 = (S + F) (x - (S a + F w) / (S + F))^2 + constant.
        """
        for p, s, a, f in zip(parameters(model), self.importance.tensors, self.anchor.tensors, importance, strict=True):
            total = s + f
            a.copy_(torch.where(total > 0, (s * a + f * p) / total.clamp_min(torch.finfo(total.dtype).tiny), p))
            s.copy_(total)

    @torch.no_grad()
    def decay_and_move(self, model: Model, importance: Sequence[Tensor], decay: float = 1.0) -> None:
        """S <- decay S + F, and the anchor moves to the weights as they are."""
        for s, f in zip(self.importance.tensors, importance, strict=True):
            s.mul_(decay).add_(f)
        self.anchor.set(parameters(model))


def squared(gradient: Tensor) -> Tensor:
    return gradient.square()


def sensitivity(
    model: Model,
    data: Data,
    examples: int,
    value: Callable[[Batch], Tensor],
    of: Callable[[Tensor], Tensor] = squared,
) -> list[Tensor]:
    """Mean over examples x of of(d value(x) / d theta), an example at a time; which ones, the global generator says."""
    weights = parameters(model)
    total = [torch.zeros_like(p) for p in weights]
    chosen = torch.randperm(len(data))[:examples]
    for i in chosen:
        x, y = data[i[None]]
        batch = Batch(x.to(model.device), None if y is None else y.to(model.device))
        found = torch.autograd.grad(value(batch), weights, allow_unused=True)
        for t, g in zip(total, found, strict=True):
            if g is not None:
                t += of(g)
    return [t / len(chosen) for t in total]


def fisher(model: Model, data: Data, examples: int) -> list[Tensor]:
    """Diagonal of the empirical Fisher information, E (d loss(x) / d theta)^2, the loss that of all stages.

    Of a model whose loss is -log p it is E (d log p / d theta)^2 (Kirkpatrick et al., 2017, section 2); of a bound, the
    same with the bound.
    """
    return sensitivity(model, data, examples, lambda batch: loss(model, batch))


def loss(model: Model, batch: Batch) -> Tensor:
    """The loss of the model itself, without penalties, summed over stages."""
    stages = range(len(model.objectives))
    return torch.stack([cast(Objective, model.objectives[i]).total(model(batch, i)) for i in stages]).sum()


class PathIntegral(Objective):
    """w_i = -sum_k g_i(k) (theta_i(k + 1) - theta_i(k)): what each weight did for the loss on its way.

    For small steps sum_i w_i is the fall of the loss (Zenke, Poole & Ganguli, 2017, eqs. 2 and 3). Its buffers live in
    the model of the phase, so that checkpoints hold them; it adds no term. g is the gradient of the loss alone.
    """

    def __init__(self, model: Model, penalty: Quadratic) -> None:
        super().__init__(learns=())
        self.path, self.origin = Slots(parameters(model)), Slots(parameters(model))
        self.parts = (model, penalty)  # in a tuple, not below: they are part of the phase's model already
        self._before: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        return {}

    def begin(self) -> None:
        """At the start of a task: an empty path from here."""
        weights = parameters(self.parts[0])
        self.path.set([torch.zeros_like(p) for p in weights])
        self.origin.set(weights)

    @torch.no_grad()
    def before_update(self, step: int) -> None:
        model, penalty = self.parts
        weights = parameters(model)
        self._before = [p.detach().clone() for p in weights]
        rows = zip(weights, penalty.gradients(model), strict=True)
        self._gradients = [torch.zeros_like(p) if p.grad is None else p.grad - own for p, own in rows]

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        rows = zip(self.path.tensors, self._gradients, parameters(self.parts[0]), self._before, strict=True)
        for w, g, now, before in rows:
            w -= g * (now - before)

    @torch.no_grad()
    def importance(self, damping: float) -> list[Tensor]:
        """max(w, 0) / ((theta - theta_0)^2 + damping) (eq. 5)."""
        rows = zip(self.path.tensors, parameters(self.parts[0]), self.origin.tensors, strict=True)
        return [w.clamp_min(0) / ((p - o).square() + damping) for w, p, o in rows]
