"""Residual flows: x + g(x) with a g that contracts."""

from __future__ import annotations

import torch
from torch import Tensor

from genrep.distributions.flows.bijection import Bijection, Mapped
from genrep.distributions.flows.root import contraction_root
from genrep.nets.lipschitz import Bound, LipschitzNet

EXACT_UP_TO = 64  # values of an example whose Jacobian is computed whole in evaluation


class Residual(Bijection):
    """z = x + g(x; c) with Lip(g) < 1 (Behrmann et al., 2019; Chen et al., 2019).

    log |det| = sum_k (-1)^(k+1) tr(J^k) / k with J = dg/dx. In train mode it is estimated without bias: traces by
    v'J^k v with random signs v, the sum by Russian roulette, n0 + N terms with N geometric, each over its probability;
    the gradient by the same draw of sum_k (-1)^k v'J^k dJ v, whose memory does not grow with the terms (Chen et al.,
    2019, section 3). In eval mode, and up to 64 values, it is exact: the determinant of the whole Jacobian; above, the
    estimate with n0 = 20. The inverse repeats x <- z - g(x) until no value moves by more than rounding.
    """

    keep_going = 0.5  # probability of each further term
    terms, evaluation_terms = 2, 20  # n0

    def __init__(self, net: LipschitzNet, size: int) -> None:
        super().__init__()
        if not 0 < net.limit < 1:
            raise ValueError(f"A residual flow needs a Lipschitz constant in (0, 1), got {net.limit}.")
        self.net, self.exact = net, size <= EXACT_UP_TO

    def forward(self, x: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(x.device.type, enabled=False):
            return self._mapped(self.net.bind(x), x, c)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> Mapped:
        with torch.autocast(z.device.type, enabled=False):
            g = self.net.bind(z)
            x, self.passes = contraction_root(lambda x: g(x, c), z)
            return x, -self._mapped(g, x, c)[1]

    def _mapped(self, g: Bound, x: Tensor, c: Tensor | None) -> Mapped:
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()  # a node without the hooks of x
            pushed = g(point, c)
            log_det = _determinant(pushed, point) if self.exact and not self.training else self._estimate(pushed, point)
        if outer:
            return x + pushed, log_det
        return x + pushed.detach(), log_det.detach()

    def _estimate(self, pushed: Tensor, point: Tensor) -> Tensor:
        """(B,): the value of the series, with the gradient of the Neumann series."""
        sure = self.terms if self.training else self.evaluation_terms
        n = sure + int(torch.empty(()).geometric_(1 - self.keep_going)) - 1
        v = torch.randint_like(point, 2) * 2 - 1
        w, value, neumann = v, 0.0, v
        for k in range(1, n + 1):
            (w,) = torch.autograd.grad(pushed, point, w, retain_graph=True)
            sign, chance = (-1) ** k, self.keep_going ** max(0, k - sure)
            value = value - sign / (k * chance) * (w * v).flatten(1).sum(1)
            neumann = neumann + sign / chance * w
        (moved,) = torch.autograd.grad(pushed, point, neumann, create_graph=True)
        slope = (moved * v).flatten(1).sum(1)
        return value + (slope - slope.detach())


def jacobian(pushed: Tensor, point: Tensor, *, create_graph: bool = True) -> Tensor:
    """d pushed / d point for each example, (B, D, D)."""
    d = point[0].numel()
    rows = torch.eye(d, dtype=point.dtype, device=point.device).view(d, 1, *point.shape[1:]).expand(d, *point.shape)
    (found,) = torch.autograd.grad(pushed, point, rows, create_graph=create_graph, is_grads_batched=True)
    return found.flatten(2).transpose(0, 1)


def _determinant(pushed: Tensor, point: Tensor) -> Tensor:
    whole = jacobian(pushed, point)
    return torch.linalg.slogdet(whole + torch.eye(whole.shape[-1], dtype=whole.dtype, device=whole.device)).logabsdet
