"""The gate: what a layer must prove before it may stand in a flow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genrep.contracts import seeded
from genrep.distributions.flows.bijection import Bijection

EPSILON = torch.finfo(torch.float64).eps


def check_bijection(
    layer: Bijection,
    shape: Sequence[int],
    *,
    condition: int = 0,
    edges: Sequence[float] = (0.0,),
    scale: float = 1.0,
    batch: int = 16,
    seed: int = 0,
    solved: float = 0.0,
) -> None:
    """Check a bijection over events of `shape`, and raise a ValueError that lists all that is wrong.

    On a copy in eval mode, at `batch` points of standard deviation `scale` and at `edges` (values where the map
    changes its form: the ends of a spline's box): the log-determinant against autograd's Jacobian, and that against
    finite differences; the round trip both ways, with opposite log-determinants; float32 against float64; examples
    that do not depend on each other; finite gradients. Then again with every parameter drawn from N(0, std^2), std 5,
    10 and 20, twice each.

    Tolerances are what float64 rounding, or the error to which a layer that solves an equation has `solved` it, can
    become through the Jacobian or its inverse; where that is beyond 1e10 times as much, only finiteness is asked for.

    >>> from genrep.distributions.flows.reshape import Squeeze
    >>> check_bijection(Squeeze(), (1, 4, 4))
    """
    wrong: list[str] = []
    layer = copy.deepcopy(layer).eval()
    with seeded(seed):
        x = scale * torch.randn(batch, *shape, dtype=torch.float64)
        x = torch.cat([x, *[torch.full((1, *shape), e, dtype=torch.float64) for e in edges]])
        c = torch.randn(len(x), condition, dtype=torch.float64) if condition else None
        _Gate(layer, x, c, wrong, "", solved).check()
        for std in (5, 5, 10, 10, 20, 20):
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.copy_(std * torch.randn(parameter.shape))
            _Gate(layer, x, c, wrong, f"parameters of std {std}: ", solved).check()
    if wrong:
        raise ValueError(f"{type(layer).__name__} is not a bijection to rely on:\n- " + "\n- ".join(wrong))


class Local(NamedTuple):
    """A layer at some points: image, claimed log-determinant, Jacobian (B, D, D) and its extreme singular values."""

    z: Tensor
    log_det: Tensor
    jacobian: Tensor
    largest: Tensor
    smallest: Tensor
    solved: float

    @property
    def conditioning(self) -> Tensor:
        return self.largest / self.smallest

    def tolerance(self, size: Tensor | float = 1.0) -> Tensor:
        """What rounding of values of that size can do to log-determinants and through the map or its inverse."""
        worst = torch.stack([self.conditioning, self.largest, 1 / self.smallest]).amax(0)
        return 1e-9 + (100 * EPSILON + self.solved) * self.jacobian.shape[-1] * worst * size

    def tame(self) -> Tensor:
        return torch.stack([self.conditioning, self.largest, 1 / self.smallest]).amax(0) < 1e10


class _Gate:
    """One layer with one set of parameters at the points x; what fails is appended to `wrong`, after `where`."""

    def __init__(
        self, layer: Bijection, x: Tensor, c: Tensor | None, wrong: list[str], where: str, solved: float
    ) -> None:
        self.double, self.single = copy.deepcopy(layer).double(), copy.deepcopy(layer).float()
        self.x, self.c, self.wrong, self.where, self.solved = x, c, wrong, where, solved

    def check(self) -> None:
        with torch.no_grad():
            z, log_det = self.double(self.x, self.c)
        if z.shape[1:] != self.double.shape_out(tuple(self.x.shape[1:])) or log_det.shape != (len(self.x),):
            self.note(f"shapes {tuple(z.shape)} and {tuple(log_det.shape)} are not (B, *shape_out) and (B,)")
            return
        if not self.finite("values or log-determinants", z, log_det):
            return
        at = self.local(self.x)
        if not self.finite("gradients of the map", at.jacobian):
            return
        slogdet = torch.linalg.slogdet(at.jacobian).logabsdet
        self.compare("log-determinant against autograd", log_det, slogdet, at.tame(), at.tolerance())
        self.check_differences(at)
        self.check_round_trip(at)
        self.check_independence(at)
        self.check_float32("map", self.x, at)
        self.check_float32("inverse", torch.randn_like(z), None)

    def note(self, what: str) -> None:
        self.wrong.append(self.where + what)

    def finite(self, what: str, *values: Tensor) -> bool:
        good = all(bool(v.isfinite().all()) for v in values)
        if not good:
            self.note(f"{what} are not finite in {values[0].dtype}".replace("torch.", ""))
        return good

    def compare(self, what: str, got: Tensor, expected: Tensor, counts: Tensor, tolerance: Tensor) -> None:
        """Note the largest error of (B, ...) relative to 1 + max |expected|, over the examples that count."""
        size = 1 + expected.abs().reshape(len(expected), -1).amax(1)
        error = (got - expected).abs().reshape(len(got), -1).amax(1)
        bad = counts & ~(error <= tolerance * size)
        if bad.any():
            i = int(torch.where(bad, error / size, -1).nan_to_num(nan=torch.inf).argmax())
            self.note(f"{what}: off by {float(error[i]):.3g} where {float(tolerance[i] * size[i]):.3g} is allowed")

    def local(self, x: Tensor) -> Local:
        """Row by row, as if examples were independent, which is checked elsewhere."""
        x = x.clone().requires_grad_()
        image, log_det = self.double(x, self.c)
        z = image.flatten(1)
        rows = [torch.autograd.grad(z[:, j].sum(), x, retain_graph=True)[0].flatten(1) for j in range(z.shape[1])]
        jacobian = torch.stack(rows, 1)
        good = jacobian.isfinite().all()
        values = torch.linalg.svdvals(jacobian.detach()) if good else torch.full_like(z, torch.inf)
        smallest = values[:, -1].clamp_min(torch.finfo(values.dtype).tiny)
        return Local(image.detach(), log_det.detach(), jacobian.detach(), values[:, 0], smallest, self.solved)

    def check_differences(self, at: Local) -> None:
        """Central differences over h, where the slope is below 1e4; halving h tells how far they can be off.

        h is 1e-6, or so large that what is left of an equation, `solved`, counts little against it. Large values add
        their rounding, in which both differences can agree.
        """
        h = max(1e-6, self.solved**0.5)
        coarse, fine = self.differences(h), self.differences(h / 2)
        slope = at.jacobian.flatten(1).abs().amax(1)
        rounding = 4 * torch.finfo(at.z.dtype).eps * at.z.flatten(1).abs().amax(1) / h / (1 + slope)
        tolerance = 1e-4 + self.solved / h + 4 * (coarse - fine).flatten(1).abs().amax(1) + rounding
        self.compare("Jacobian against finite differences", fine, at.jacobian, slope < 1e4, tolerance)

    def differences(self, h: float) -> Tensor:
        d, x = self.x[0].numel(), self.x
        steps = h * torch.eye(d, dtype=x.dtype).view(d, 1, *x.shape[1:])
        c = None if self.c is None else self.c.repeat(d, 1)
        with torch.no_grad():
            above, below = (self.double((x + s * steps).flatten(0, 1), c)[0] for s in (1, -1))
        return ((above - below) / (2 * h)).reshape(d, len(x), -1).permute(1, 2, 0)

    def check_round_trip(self, at: Local) -> None:
        with torch.no_grad():
            back, log_det_back = self.double.inverse(at.z, self.c)
            z = torch.randn_like(at.z)
            there, log_det_there = self.double.inverse(z, self.c)
        if not self.finite("values or log-determinants of the inverse", back, log_det_back, there, log_det_there):
            return
        size = 1 + at.z.flatten(1).abs().amax(1)
        self.compare("round trip x, z, x", back, self.x, at.tame(), at.tolerance(size))
        self.compare("log-determinant of the inverse", log_det_back, -at.log_det, at.tame(), at.tolerance(size))
        again = self.local(there)
        size = 1 + there.flatten(1).abs().amax(1)
        self.compare("round trip z, x, z", again.z, z, again.tame(), again.tolerance(size))
        self.compare(
            "log-determinant after the inverse", again.log_det, -log_det_there, again.tame(), again.tolerance(size)
        )

    def check_independence(self, at: Local) -> None:
        """The first example alone, and beside others that are large."""
        for name, some in (("alone", self.x[:1]), ("among large ones", torch.cat([self.x[:1], 1e3 * self.x[1:]]))):
            with torch.no_grad():
                z, log_det = self.double(some, None if self.c is None else self.c[: len(some)])
            same = [torch.allclose(a[:1], b[:1], 1e-8, 1e-8) for a, b in ((z, at.z), (log_det, at.log_det))]
            if not all(same):
                self.note(f"an example {name} is mapped differently")

    def check_float32(self, name: str, point: Tensor, at: Local | None) -> None:
        """Finite with finite gradients; as close to float64, given `at`, as float32 rounding of everything allows."""
        start = point.float().requires_grad_()
        direction = self.single.forward if name == "map" else self.single.inverse
        value, log_det = direction(start, None if self.c is None else self.c.float())
        if not self.finite(f"values or log-determinants of the {name}", value, log_det):
            return
        if at is not None:
            value_error, log_det_error = self.sensitivity(at)
            everywhere = torch.ones_like(at.log_det, dtype=torch.bool)
            self.compare("float32 against float64", value.detach().double(), at.z, everywhere, value_error)
            found = log_det.detach().double()
            self.compare("float32 log-determinant against float64", found, at.log_det, everywhere, log_det_error)
        inputs = [start, *self.single.parameters()]
        gradients = torch.autograd.grad(value.sum() + log_det.sum(), inputs, allow_unused=True)
        self.finite(f"gradients of the {name}", *[g for g in gradients if g is not None])

    def sensitivity(self, at: Local) -> tuple[Tensor, Tensor]:
        """How far value and log-determinant move, in float64, when inputs and parameters move by float32 rounding."""
        rounding = torch.finfo(torch.float32).eps
        moved_z, moved_log_det = torch.zeros_like(at.log_det), torch.zeros_like(at.log_det)
        for _ in range(4):
            moved = copy.deepcopy(self.double)
            with torch.no_grad():
                for parameter in moved.parameters():
                    parameter.mul_(1 + rounding * torch.randn_like(parameter))
                z, log_det = moved(self.x * (1 + rounding * torch.randn_like(self.x)), self.c)
            moved_z = torch.maximum(moved_z, (z - at.z).abs().flatten(1).amax(1))
            moved_log_det = torch.maximum(moved_log_det, (log_det - at.log_det).abs())
        least = 1e-5 + self.solved
        return least + 30 * moved_z, least + 30 * moved_log_det
