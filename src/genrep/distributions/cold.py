"""Cold diffusion: data are degraded by something other than Gaussian noise, and a network restores them.

x_t = D(x, t, seed), D(x, 0, seed) = x, is a function of x: all that is random in it is a seed, drawn once for each
example (Bansal et al., 2022).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional
from genrep.distributions.basic import Point
from genrep.distributions.latent import Ancestral
from genrep.nets.condition import encode_condition

ColdSampler = Literal["improved", "naive"]
KEPT = 4  # lowest frequencies of each side that a blurred picture is drawn from


class Degradation(nn.Module):
    """D(x, t, seed), t (B,); what nothing is left of at t = 1 is drawn by `end`."""

    def seed(self, x: Tensor) -> Tensor:
        """What is random, for examples like x."""
        return x.new_zeros(len(x), 0)

    def forward(self, x: Tensor, t: Tensor, seed: Tensor) -> Tensor:
        raise NotImplementedError

    def end(self, seed: Tensor) -> Tensor:
        """x_1 without data."""
        raise NotImplementedError

    def loss(self, x: Tensor) -> Tensor | None:
        """What teaches `end`, (B,), where it learns."""
        return None


class Masking(Degradation):
    """Pixels are replaced by noise N(0, 1) in random order: at t a share t of them; all channels of a pixel at once."""

    def seed(self, x: Tensor) -> Tensor:
        return torch.cat([torch.rand_like(x[:, :1]), torch.randn_like(x)], 1)

    def forward(self, x: Tensor, t: Tensor, seed: Tensor) -> Tensor:
        gone = seed[:, :1] < t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(gone, seed[:, 1:], x)

    def end(self, seed: Tensor) -> Tensor:
        return seed[:, 1:]


class VectorMasking(Masking):
    """The same for vectors, where every column is a pixel of its own."""

    def seed(self, x: Tensor) -> Tensor:
        return torch.cat([torch.rand_like(x), torch.randn_like(x)], 1)

    def forward(self, x: Tensor, t: Tensor, seed: Tensor) -> Tensor:
        order, noise = seed.chunk(2, 1)
        return torch.where(order < t.to(x.dtype)[:, None], noise, x)

    def end(self, seed: Tensor) -> Tensor:
        return seed.chunk(2, 1)[1]


class Blur(Degradation):
    """Heat spreads: cosine coefficient (i, j) falls by exp(-((pi i / H)^2 + (pi j / W)^2) s^2 / 2).

    The width s(t), in pixels, grows from 0 to half the longer side, most of it late. At t = 1 the lowest frequencies
    are drawn from a Gaussian that is fitted to the data's; the others are zero.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        c, h, w = shape
        self.shape, self.kept = shape, (min(KEPT, h), min(KEPT, w))
        for name, n in (("rows", h), ("columns", w)):
            self.register_buffer(name, cosines(n).to(torch.get_default_dtype()), persistent=False)
        d = c * self.kept[0] * self.kept[1]
        self.mean, self.log_std = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))
        self.lower = nn.Parameter(torch.zeros(d, d))

    def seed(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), len(self.mean), device=x.device, dtype=x.dtype)

    def damping(self, t: Tensor) -> Tensor:
        """Of every coefficient, (B, 1, H, W)."""
        _, h, w = self.shape
        width = max(h, w) / 2 * (50.0**t - 1) / 49
        wave = lambda n: (math.pi / n * torch.arange(n, device=t.device, dtype=t.dtype)).square()  # noqa: E731
        return (-(wave(h)[:, None] + wave(w)) * width.square().view(-1, 1, 1, 1) / 2).exp()

    def forward(self, x: Tensor, t: Tensor, seed: Tensor) -> Tensor:
        return self.back(self.damping(t.to(x.dtype)) * self.coefficients(x))

    def coefficients(self, x: Tensor) -> Tensor:
        """Of the orthonormal cosine transform."""
        return along(along(x, self.rows, 2), self.columns, 3)

    def back(self, coefficients: Tensor) -> Tensor:
        return along(along(coefficients, self.rows.T, 2), self.columns.T, 3)

    def _low(self, x: Tensor) -> Tensor:
        found = self.damping(torch.ones(1, device=x.device, dtype=x.dtype)) * self.coefficients(x)
        return found[:, :, : self.kept[0], : self.kept[1]].flatten(1)

    def loss(self, x: Tensor) -> Tensor:
        """-log density but for a constant, white = L (low - mean) / std, L lower triangular with ones."""
        centred = (self._low(x).detach() - self.mean) * (-self.log_std).exp()
        white = centred + (self.lower.tril(-1) * centred[:, None]).sum(2)
        return 0.5 * white.square().sum(1) + self.log_std.sum()

    def end(self, seed: Tensor) -> Tensor:
        eye = torch.eye(len(self.mean), device=seed.device, dtype=seed.dtype)
        centred = torch.linalg.solve_triangular(eye + self.lower.tril(-1), seed.T, upper=False).T
        low = self.mean + self.log_std.exp() * centred
        c, h, w = self.shape
        found = seed.new_zeros(len(seed), c, h, w)
        found[:, :, : self.kept[0], : self.kept[1]] = low.view(-1, c, *self.kept)
        return self.back(found)


def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix, (n, n) float64."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    table = (math.pi / n * k * (i + 0.5)).cos() * (2 / n) ** 0.5
    return torch.cat([table[:1] / 2**0.5, table[1:]])


def along(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """The matrix applied to one dimension of x."""
    with torch.autocast(x.device.type, enabled=False):
        return (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)


class ColdProcess(Conditional):
    """x_t with a fresh seed."""

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.degradation = degradation

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Point:
        return Point(self.degradation(x, t, self.degradation.seed(x)))


class Restorer(Conditional):
    """restorer(x_t, t, y) -> the estimate of x: x_t plus the network's output."""

    can_sample = False

    def __init__(self, net: nn.Module, condition: int = 0) -> None:
        super().__init__()
        self.net, self.condition_width, self.reads_y = net, condition, condition > 0

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Point:
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        return Point(x + self.net(x, t, c).to(x.dtype))


class Cold(Conditional):
    """x_1 from the degradation's end, then t from 1 to 0 in `timesteps` steps.

    improved: x_s = x_t - D(R(x_t), t) + D(R(x_t), s), which stays right where R is a little wrong (Bansal et al., 2022,
    algorithm 2). naive: x_s = D(R(x_t), s) (algorithm 1).
    """

    def __init__(self, restorer: Conditional, degradation: Degradation, shape: tuple[int, ...], timesteps: int) -> None:
        super().__init__()
        if timesteps < 1:
            raise ValueError(f"Expected at least 1 step, got {timesteps}.")
        self.restorer, self.degradation, self.shape, self.timesteps = restorer, degradation, shape, timesteps
        self.reads_y = restorer.reads_y
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, *, y: Tensor | None = None, sampler: ColdSampler = "improved", evaluations: int = 0) -> Ancestral:
        """How samples are drawn.

        Args:
            sampler: improved, or naive.
            evaluations: Of the network per sample, at most the steps of the model; 0: as many.
        """
        steps, zero = self.evaluations(sampler=sampler, evaluations=evaluations), self.get_buffer("zero")

        def draw(n: int) -> Tensor:
            seed = self.degradation.seed(zero.new_zeros(n, *self.shape))
            return self.restore(self.degradation.end(seed), seed, y, steps=steps, sampler=sampler)

        return Ancestral(draw, None if y is None else len(y))

    def restore(self, x: Tensor, seed: Tensor, y: Tensor | None, *, steps: int, sampler: ColdSampler) -> Tensor:
        """From x_1 to x_0."""
        grid = torch.linspace(1, 0, steps + 1, device=x.device)
        for a, b in zip(grid[:-1], grid[1:], strict=True):
            clean = self.restorer(x, a.expand(len(x)), y=y).mean
            if b == 0:
                return clean
            after = self.degradation(clean, b.expand(len(x)), seed)
            x = after if sampler == "naive" else x - self.degradation(clean, a.expand(len(x)), seed) + after
        return x

    def evaluations(self, *, sampler: ColdSampler = "improved", evaluations: int = 0) -> int:
        if sampler not in get_args(ColdSampler):
            raise ValueError(
                f"Expected a sampler of {', '.join(get_args(ColdSampler))}, got {sampler!r}: there is no Gaussian "
                "noise here that others could follow."
            )
        if not 0 <= evaluations <= self.timesteps:
            raise ValueError(f"Expected 1 to {self.timesteps} evaluations (0: all), got {evaluations}.")
        return evaluations or self.timesteps
