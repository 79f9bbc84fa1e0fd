"""Classifiers: p(y | x)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Categorical

from genrep.contracts import Conditional


class Label(Conditional):
    """p(y | x) from a network with logits (B, classes)."""

    measure = "mass"
    can_sample = False

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Categorical:
        return Categorical(logits=self.net(x).float(), validate_args=False)
