"""A causal transformer over patches of real values, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from genrep.nets.causal_attention import BlockWalk, CausalBlock
from genrep.nets.coupling import zeroed


class PatchTransformer(nn.Module):
    """(B, N, P), (B, condition) or None -> (B, size, N, P): outputs of patch n read the patches before it.

    The last layer starts at zero, and what it reads is normalised, so that its outputs are bounded for any x.
    """

    def __init__(
        self, patches: int, values: int, size: int, width: int, depth: int, heads: int, condition: int = 0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width that heads={heads} divides, got {width}.")
        self.shape_out = (size, values)
        self.enter = nn.Sequential(nn.Linear(values, width), nn.LayerNorm(width), nn.Linear(width, width))
        self.places = nn.Parameter(0.1 * torch.randn(patches, width))
        self.start = nn.Parameter(torch.zeros(width))  # stands in for the patch before the first
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        self.blocks = nn.ModuleList(CausalBlock(width, heads, "all") for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), zeroed(nn.Linear(width, size * values)))

    def _known(self, c: Tensor | None) -> Tensor:
        """What is known of each place without any patch, (B or 1, N, width)."""
        if self.given is None:
            return self.places[None]
        assert c is not None
        return self.places + self.given(c).unsqueeze(1)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        before = torch.cat([self.start.expand(len(x), 1, -1), self.enter(x[:, :-1])], 1)
        h = before + self._known(c)
        for block in self.blocks:
            h = block(h, x.shape[1])
        return self.leave(h).unflatten(2, self.shape_out).movedim(2, 1)

    def walk(self, n: int, c: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The same, patch by patch: the patch before (n, P) -> (n, size, P); the first call reads none."""
        known = self._known(c).expand(n, -1, -1)
        length = known.shape[1]
        blocks = [BlockWalk(b, n, length, length) for b in cast("Iterable[CausalBlock]", self.blocks)]
        position = 0

        def step(before: Tensor) -> Tensor:
            nonlocal position
            h = (self.enter(before) if position else self.start.expand(n, -1)) + known[:, position]
            for block in blocks:
                h = block(position, h)
            position += 1
            return self.leave(h).unflatten(1, self.shape_out)

        return step
