"""Sylvester flows: planar flows of several directions at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.planar import tanh_slope
from genrep.distributions.flows.root import bisect, with_gradient_of
from genrep.nets.coupling import zeroed


class Sylvester(Bijection):
    """z = x + Q R tanh(T Q'x + b), Q orthonormal (D, M), R and T upper triangular (van den Berg et al., 2018).

    log |det| = sum_i log(1 + R_ii T_ii (1 - tanh(a_i)^2)) with a = T Q'x + b. Q is a product of M Householder
    reflections; the diagonals are 0.97 tanh(raw), so that R_ii T_ii > -0.95. The inverse solves
    a + T R tanh(a) = T Q'z + b from the last of its M values to the first, each by bisection; then x = z - Q R tanh(a).
    With a condition, R, T and b are affine functions of it.
    """

    def __init__(self, columns: int, directions: int = 0, condition: int = 0) -> None:
        super().__init__()
        m = directions or min(columns, 16)
        if not 1 <= m <= columns:
            raise ValueError(f"Expected 1 to {columns} directions of {columns} columns, got {directions}.")
        self.reflections = nn.Parameter(torch.randn(m, columns))
        upper = torch.eye(m).expand(2, m, m) * torch.tensor([0.0, 1.0])[:, None, None]  # R = 0: the identity
        self.start = nn.Parameter(torch.cat([upper.flatten(), torch.zeros(m)]))
        self.given = zeroed(nn.Linear(condition, 2 * m * m + m, bias=False)) if condition else None
        self.m = m

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(x.device.type, enabled=False):
            q, r, t, b = self._parameters_of(x, c)
            a = _apply(t, x @ q) + b
            return x + _apply(r, torch.tanh(a)) @ q.T, self._log_det(r, t, a)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(z.device.type, enabled=False):
            q, r, t, b = self._parameters_of(z, c)
            a = self._solved(t @ r, _apply(t, z @ q) + b)
            return z - _apply(r, torch.tanh(a)) @ q.T, -self._log_det(r, t, a)

    def _parameters_of(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q (D, M), R and T (B or 1, M, M), b (B or 1, M)."""
        raw, m = self.start[None], self.m
        if self.given is not None:
            assert c is not None
            raw = raw + self.given(c.to(raw.dtype))
        pair, b = raw.to(x.dtype).split([2 * m * m, m], 1)
        pair = pair.unflatten(1, (2, m, m))
        diagonal = 0.97 * torch.tanh(pair.diagonal(dim1=-2, dim2=-1))
        r, t = (pair.triu(1) + torch.diag_embed(diagonal)).unbind(1)
        return self._orthonormal(x.dtype), r, t, b

    def _orthonormal(self, dtype: torch.dtype) -> Tensor:
        """The first M columns of a product of reflections."""
        v = self.reflections.to(dtype)
        v = v / (v.square().sum(1, keepdim=True) + 1e-30).sqrt()
        q = torch.eye(v.shape[1], self.m, dtype=dtype, device=v.device)
        for one in v.flip(0):
            q = q - 2 * torch.outer(one, one @ q)
        return q

    def _log_det(self, r: Tensor, t: Tensor, a: Tensor) -> Tensor:
        both = r.diagonal(dim1=-2, dim2=-1) * t.diagonal(dim1=-2, dim2=-1)
        return torch.log1p(both * tanh_slope(a)).sum(1)

    def _solved(self, mixing: Tensor, target: Tensor) -> Tensor:
        """a with a + mixing tanh(a) = target, for an upper triangular mixing (B or 1, M, M)."""
        found: list[Tensor] = []
        for i in range(self.m - 1, -1, -1):
            own = mixing[:, i, i]
            rest = target[:, i]
            if found:
                rest = rest - (mixing[:, i, i + 1 :] * torch.tanh(torch.stack(found, 1))).sum(1)
            f = lambda a, own=own: a + own * torch.tanh(a)  # noqa: E731
            a = bisect(f, rest, rest - own.abs(), rest + own.abs())
            found.insert(0, with_gradient_of(a, f(a), rest, 1 + own * tanh_slope(a)))
        return torch.stack(found, 1)


def _apply(matrices: Tensor, x: Tensor) -> Tensor:
    """(B or 1, M, M), (B, M) -> (B, M)."""
    return torch.einsum("bij,bj->bi", matrices.expand(len(x), -1, -1), x)
