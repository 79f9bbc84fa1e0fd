"""Tables of code vectors, and networks that read codes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.collective import from_first, summed
from genrep.nets.levels import level_of
from genrep.nets.raster import Raster, Walk

CodebookName = Literal["ema", "gradient"]
_FREQUENT = 1e-12  # below any frequency that one use leaves


class Codebook(nn.Module):
    """K vectors e_k in R^D; vectors z (B, D, *grid) have codes argmin_k |z - e_k|^2, (B, *grid).

    ema: in train mode every e_k is a moving average of the z that choose it, N_k <- d N_k + (1 - d) n_k and
    e_k <- e_k + (1 - d) n_k / N_k (mean - e_k) (van den Oord et al., 2017, appendix A.1, with their ratio m_k / N_k
    kept instead of m_k). gradient: e_k are parameters. Either way N_k is a frequency; an entry whose N_k falls below
    `revive` / K takes the place of a z drawn from the batch. At the start all do, so the table begins on the data.

    Counts and sums are those of all processes that train together, and the draws those of the first.
    """

    frequency: Tensor
    vectors: Tensor

    def __init__(
        self, size: int, width: int, kind: CodebookName = "ema", *, decay: float = 0.99, revive: float = 0.1
    ) -> None:
        super().__init__()
        if size < 2 or width < 1:
            raise ValueError(f"Expected a codebook of at least 2 entries of width >= 1, got {size} of {width}.")
        if not 0 <= decay < 1 or not 0 <= revive < 1:
            raise ValueError(f"Expected decay and revive in [0, 1), got {decay} and {revive}.")
        self.kind, self.decay, self.revive = kind, decay, revive
        vectors = torch.randn(size, width) / width**0.5
        if kind == "gradient":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
        self.register_buffer("frequency", torch.zeros(size))

    @property
    def size(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def codes(self, z: Tensor) -> Tensor:
        """The nearest entry of every vector, (B, D, *grid) -> (B, *grid); never in half precision."""
        with torch.autocast(z.device.type, enabled=False):
            table = self.vectors.float().to(torch.promote_types(z.dtype, torch.float32))
            flat = z.to(table).movedim(1, -1)
            return (table.square().sum(1) - 2 * flat @ table.T).argmin(-1)

    def look_up(self, codes: Tensor) -> Tensor:
        """The entries of codes, (B, *grid) -> (B, D, *grid)."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    @torch.no_grad()
    def observe(self, z: Tensor) -> None:
        """One step of the moving averages, and revival, from the vectors of a batch, (B, D, *grid)."""
        flat = z.detach().to(self.vectors.dtype).movedim(1, -1).flatten(0, -2)
        self._replace_rare(flat)
        chosen = F.one_hot(self.codes(z).flatten(), self.size).to(flat)
        with torch.autocast(z.device.type, enabled=False):
            sums = summed(torch.cat([chosen.sum(0)[:, None], chosen.T @ flat], 1))
        counts, sums = sums[:, 0], sums[:, 1:]
        share = counts / counts.sum()
        self.frequency.lerp_(share, 1 - self.decay)
        if self.kind == "ema":
            step = (1 - self.decay) * share / self.frequency.clamp_min(_FREQUENT)
            mean = sums / counts.clamp_min(1)[:, None]
            self.vectors.lerp_(mean, step[:, None])

    def _replace_rare(self, flat: Tensor) -> None:
        rare = self.frequency < self.revive / self.size
        drawn = from_first(flat[torch.randint(len(flat), (self.size,), device=flat.device)])
        self.vectors.copy_(torch.where(rare[:, None], drawn, self.vectors))
        self.frequency.masked_fill_(rare, 1 / self.size)


class Embedded(Raster):
    """A network over pixels that reads codes, given as levels in [-1, 1], as learnt vectors: codes have no order."""

    def __init__(self, net: Raster, levels: int, width: int) -> None:
        super().__init__()
        self.net, self.levels, self.features = net, levels, net.features
        self.table = nn.Embedding(levels, width)

    def _vectors(self, x: Tensor) -> Tensor:
        return self.table(level_of(x[:, 0], self.levels)).movedim(-1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net(self._vectors(x), condition)

    def walk(self, n: int, height: int, width: int, condition: Tensor | None = None) -> Walk:
        step = self.net.walk(n, height, width, condition)
        return lambda previous: step(self._vectors(previous))
