"""Dense residual denoiser for vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genrep.nets.time import ScaleShift, TimeEmbedding, zeroed


class DenseBlock(nn.Module):
    """h + linear(dropout(act(scale_shift(norm(linear(act(h)))))))."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.modulate = ScaleShift(embedding, width)
        self.leave = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Linear(width, width)))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return h + self.leave(self.modulate(self.enter(h), embedding))


class ResidualMLP(nn.Module):
    """(x_t, t, c) -> (B, channels_out, ...) over flattened x_t: `blocks` residual blocks of `width` units."""

    def __init__(
        self,
        shape: Sequence[int],
        channels_out: int,
        *,
        width: int = 256,
        blocks: int = 4,
        dropout: float = 0.0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.shape_out = (channels_out, *shape[1:])
        self.embed, self.activate = TimeEmbedding(width, width, condition), nn.SiLU()
        self.stem = nn.Linear(torch.Size(shape).numel(), width)
        self.blocks = nn.ModuleList(DenseBlock(width, width, dropout) for _ in range(blocks))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), zeroed(nn.Linear(width, torch.Size(self.shape_out).numel()))
        )

    def encode(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The output of every block, (B, width) each."""
        embedding, h = self.activate(self.embed(t, c)), self.stem(x.flatten(1))
        outputs = []
        for block in self.blocks:
            h = block(h, embedding)
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        return self.head(self.encode(x, t, c)[-1]).unflatten(1, self.shape_out)

    def features(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> dict[str, Tensor]:
        """The output of every block: {block0: (B, width), ...}."""
        return {f"block{i}": h for i, h in enumerate(self.encode(x, t, c))}
