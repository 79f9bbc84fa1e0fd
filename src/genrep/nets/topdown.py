"""Networks of hierarchical autoencoders: features from the bottom up, levels of a code from the top down.

Resolutions run from the top, 1 x 1, down to that of the image. A vector is an image of one pixel with a channel for
each value; there every kernel is 1 x 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrep.nets.conv import default_depth, sizes
from genrep.nets.coupling import zeroed

Size = tuple[int, int]


def resolutions(shape: Sequence[int], depth: int) -> list[Size]:
    """From the top down: 1 x 1, then what `depth` halvings leave of the image, up to its own size; 0: by its size.

    >>> resolutions((1, 28, 28), 0), resolutions((5,), 0)
    ([(1, 1), (7, 7), (14, 14), (28, 28)], [(1, 1)])
    """
    if len(shape) == 1:
        return [(1, 1)]
    return [(1, 1), *sizes(shape[1], shape[2], depth or default_depth(shape[1], shape[2]))[::-1]]


def _conv(a: int, b: int, size: Size) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1) if min(size) > 2 else nn.Conv2d(a, b, 1)


class Block(nn.Module):
    """A narrow residual branch, without the addition: act, 1 x 1, act, 3 x 3, act, 1 x 1 (VD-VAE, figure 3).

    `gain`: factor on the initial weights of the last layer; N branches with 1 / sqrt(N) add up to the variance of one.
    """

    def __init__(self, channels: int, out: int, width: int, size: Size, gain: float = 1.0) -> None:
        super().__init__()
        last = nn.Conv2d(width, out, 1)
        with torch.no_grad():
            last.weight *= gain
        self.layers = nn.Sequential(
            nn.GELU(), nn.Conv2d(channels, width, 1), nn.GELU(), _conv(width, width, size), nn.GELU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class BottomUp(nn.Module):
    """(x, c) -> features (B, width, h, w) for every resolution that has levels, from the top down; None elsewhere."""

    def __init__(self, shape: Sequence[int], width: int, counts: Sequence[int], depth: int, condition: int) -> None:
        super().__init__()
        found, self.counts = resolutions(shape, depth), tuple(counts)
        self.vector = len(shape) == 1
        self.stem = _conv(shape[0], width, found[-1])
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        gain = max(1, sum(counts)) ** -0.5
        self.blocks, self.shrink = nn.ModuleList(), nn.ModuleList()
        for k in reversed(range(len(found))):  # from the image up
            full = k == len(found) - 1 and k > 0
            count = counts[k] if full else max(1, counts[k])
            self.blocks.append(nn.ModuleList(Block(width, width, width // 2, found[k], gain) for _ in range(count)))
            if k == 0:
                continue
            whole = nn.Conv2d(width, width, found[k])  # all that is left becomes one pixel
            self.shrink.append(whole if k == 1 else nn.Conv2d(width, width, 3, stride=2, padding=1))

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor | None]:
        h = self.stem(x[:, :, None, None] if self.vector else x)
        if self.given is not None:
            assert c is not None
            h = h + self.given(c)[:, :, None, None]
        found = []
        for k, blocks in enumerate(self.blocks):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = h + block(h)
            found.append(h if self.counts[len(self.counts) - 1 - k] else None)
            if k < len(self.shrink):
                h = self.shrink[k](h)
        return found[::-1]


class Level(nn.Module):
    """One level of the code, (B, latent, h, w), in the stream h (B, width, h, w) that runs from the top down."""

    def __init__(self, width: int, latent: int, size: Size, gain: float, *, sees_stream: bool) -> None:
        super().__init__()
        self.size, self.latent, self.sees_stream = size, latent, sees_stream
        self.before = Block(width, 2 * latent + width, width // 2, size)
        zeroed(self.before.layers[-1])  # pyright: ignore[reportArgumentType]  -- p(z) = N(0, I) before training
        self.evidence = Block(2 * width if sees_stream else width, 2 * latent, width // 2, size)
        self.enter = nn.Conv2d(latent, width, 1)
        self.after = Block(width, width, width // 2, size, gain)
        with torch.no_grad():
            self.enter.weight *= gain

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and raw log standard deviation of this level given those above, (B, 2, latent, h, w), and h updated."""
        numbers, more = self.before(h).split([2 * self.latent, h.shape[1]], 1)
        return numbers.unflatten(1, (2, self.latent)), h + more

    def posterior(self, h: Tensor, features: Tensor) -> Tensor:
        """What x says of this level, (B, 2, latent, h, w), `sees_stream` given the levels above."""
        seen = torch.cat([h, features], 1) if self.sees_stream else features
        return self.evidence(seen).unflatten(1, (2, self.latent))

    def absorb(self, h: Tensor, z: Tensor) -> Tensor:
        """h after z has entered."""
        h = h + self.enter(z)
        return h + self.after(h)


class TopDown(nn.Module):
    """The stream from a learnt start at the top, through all levels, to the outputs (B, *shape_out)."""

    def __init__(
        self,
        shape: Sequence[int],
        shape_out: Sequence[int],
        width: int,
        latent: int,
        counts: Sequence[int],
        *,
        depth: int = 0,
        condition: int = 0,
        sees_stream: bool = True,
    ) -> None:
        super().__init__()
        found, gain = resolutions(shape, depth), sum(counts) ** -0.5
        self.sizes, self.shape_out = found, tuple(shape_out)
        self.places = [k for k, count in enumerate(counts) for _ in range(count)]  # resolution of each level
        self.levels = nn.ModuleList(Level(width, latent, found[k], gain, sees_stream=sees_stream) for k in self.places)
        self.starts = nn.ParameterList(0.1 * torch.randn(1, width, *size) for size in found)
        self.given = nn.Linear(condition, width, bias=False) if condition else None
        self.refine = Block(width, width, width // 2, found[-1], gain)
        self.head = nn.Sequential(nn.GELU(), _conv(width, shape_out[0], found[-1]))

    def start(self, n: int, c: Tensor | None) -> Tensor:
        """(n, width, 1, 1)."""
        h = self.starts[0].expand(n, -1, -1, -1)
        if self.given is None:
            return h
        assert c is not None
        return h + self.given(c)[:, :, None, None]

    def grown(self, h: Tensor, place: int, towards: int) -> Tensor:
        """h from one resolution to another below it."""
        for k in range(place + 1, towards + 1):
            h = F.interpolate(h, size=self.sizes[k], mode="nearest") + self.starts[k]
        return h

    def output(self, h: Tensor) -> Tensor:
        """(B, *shape_out) from the stream at the resolution of the last level."""
        h = self.grown(h, self.places[-1], len(self.sizes) - 1)
        return self.head(h + self.refine(h)).reshape(len(h), *self.shape_out)
