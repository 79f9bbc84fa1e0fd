"""A network that writes the weights of a likelihood, in chunks, from a code of the task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from genrep.contracts import Batch, Conditional, Model, Objective, Terms, Unsupported
from genrep.nets.mlp import MLP


class LearntCodes(nn.Module):
    """n learnt codes, (n, width)."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(n, width) / math.sqrt(width))


class HyperNetwork(nn.Module):
    """h(e_t) in R^size: chunk j is the network's answer to (e_t, c_j); its last layer starts at zero, and so does h.

    Its own size does not depend on the number of tasks but for a code for each.
    """

    def __init__(self, size: int, tasks: int, *, code: int, hidden: Sequence[int], chunk: int) -> None:
        super().__init__()
        if min(code, chunk, *hidden) < 1:
            raise ValueError(f"Expected code, hidden and chunk >= 1, got {code}, {list(hidden)} and {chunk}.")
        self.size = size
        self.tasks = nn.ModuleList(LearntCodes(1, code) for _ in range(tasks))
        self.chunks = LearntCodes(math.ceil(size / chunk), code)
        self.body = MLP((2 * code,), hidden, (chunk,))
        last = cast(nn.Linear, self.body.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, task: int) -> Tensor:
        c = self.chunks.values
        e = cast(LearntCodes, self.tasks[task]).values.expand(len(c), -1)
        return self.body(torch.cat([e, c], 1)).flatten()[: self.size]


class Written(Conditional):
    """p(x | z, y) with the weights w_0 + s h(e_t): w_0 those it starts from, s their spread in each tensor.

    w_0 is that of the model as it is built from its seed, so it is not stored.
    """

    start: Tensor
    spread: Tensor

    def __init__(self, hyper: HyperNetwork, likelihood: Conditional, task: int) -> None:
        super().__init__()
        if any(True for _ in likelihood.buffers()):
            raise Unsupported("Strategy hypercl needs a decoder that is weights alone; this one has buffers, too.")
        weights = dict(likelihood.named_parameters())
        self.hyper, self.task, self.template = hyper, task, (likelihood,)  # in a tuple: its weights are not learnt
        self.shapes = {name: p.shape for name, p in weights.items()}
        self.reads_y, self.measure = likelihood.reads_y, likelihood.measure
        flat = [p.detach().flatten() for p in weights.values()]
        self.register_buffer("start", torch.cat(flat), persistent=False)
        self.register_buffer("spread", torch.cat([torch.full_like(p, _spread(p)) for p in flat]), persistent=False)

    def weights(self) -> dict[str, Tensor]:
        flat = self.start + self.spread * self.hyper(self.task)
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {name: p.view(shape) for (name, shape), p in zip(self.shapes.items(), parts, strict=True)}

    def forward(self, z: Tensor, *, y: Tensor | None = None) -> Distribution:
        return functional_call(self.template[0], self.weights(), (z,), {"y": y})


def _spread(p: Tensor) -> float:
    """Standard deviation of a tensor's values at the start; 0.1 where they are all alike."""
    found = float(p.std()) if p.numel() > 1 else 0.0
    return found or 0.1


class Unchanged(Objective):
    """1 / t sum_{t' < t} |h(e_t') - h*(e_t')|^2 / 2, () : what the network wrote for earlier tasks, it writes still.

    von Oswald et al. (2020), eq. 2, without the look-ahead step that they found of little use.
    """

    def __init__(self, hyper: HyperNetwork, weight: float, task: int) -> None:
        if not weight > 0:
            raise ValueError(f"Expected weight > 0, got {weight}.")
        self.terms = {"unchanged": weight}
        super().__init__(learns=())
        self.hyper, self.task = (hyper,), task  # in a tuple: it is part of the phase's model already
        self.wanted: list[Tensor] = []

    @torch.no_grad()
    def start(self) -> None:
        """What is written now is what shall be."""
        self.wanted = [self.hyper[0](t) for t in range(self.task)]

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        if not self.wanted:
            return {}
        each = [0.5 * (self.hyper[0](t) - wanted).square().sum() for t, wanted in enumerate(self.wanted)]
        return {"unchanged": torch.stack(each).mean()}
