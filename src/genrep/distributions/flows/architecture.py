"""How couplings are arranged for images and for vectors, whatever elementwise map they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from genrep.distributions.flows.autoregressive import Autoregressive, Inverted
from genrep.distributions.flows.batch_norm import BatchNorm
from genrep.distributions.flows.bijection import Bijection, Chain, Multiscale
from genrep.distributions.flows.coupling import Coupling, checkerboard, column_coupling, halves
from genrep.distributions.flows.elementwise import Elementwise
from genrep.distributions.flows.linear import Linear
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.reshape import Flatten, Squeeze
from genrep.nets.coupling import ConvCoupling
from genrep.nets.masked_dense import MaskedDense

NormalisationName = Literal["activation", "batch"]
_NORMS: dict[str, type[ActNorm] | type[BatchNorm]] = {"activation": ActNorm, "batch": BatchNorm}
Step = Callable[[tuple[int, ...], int], list[Bijection]]  # (shape, k) -> the k-th coupling and what goes with it


def halvings(height: int, width: int) -> int:
    """How often both sides can be halved without a remainder.

    >>> halvings(28, 28), halvings(32, 48), halvings(9, 12)
    (2, 4, 0)
    """
    both = height | width
    return (both & -both).bit_length() - 1


def squeezes(shape: tuple[int, ...], levels: int | None) -> int:
    """`levels` if the image can be squeezed that often; None: as often as leaves sides of at least 4.

    >>> [squeezes((1, s, s), None) for s in (8, 9, 28, 32)]
    [1, 0, 2, 3]
    """
    if len(shape) != 3:
        if levels is not None:
            raise ValueError(f"levels is for images (C, H, W); this data has shape {shape}: leave it out.")
        return 0
    most = halvings(shape[1], shape[2])
    if levels is None:
        return min(most, max(0, (min(shape[1:]) // 4).bit_length() - 1))
    if not 0 <= levels <= most:
        raise ValueError(
            f"A {shape[1]} x {shape[2]} image can be squeezed {most} times at most, because both sides must be even "
            f"each time: expected levels of 0 to {most}, got {levels}."
        )
    return levels


def arrange(
    shape: tuple[int, ...],
    levels: int,
    couplings: int,
    step: Step,
    normalisation: NormalisationName = "activation",
) -> Bijection:
    """An image flow of `levels` squeezes with `couplings` steps each, or a chain of steps.

    The first layer normalises every value by its own statistics, and every group of steps ends by normalising channels
    (or columns). Half of the values leave after each level but the last (RealNVP, section 3.6).
    """
    norm = _NORMS[normalisation]
    start = norm(*shape)
    per_channel = lambda s: norm(s[0], *[1] * (len(s) - 1))  # noqa: E731
    if levels == 0:
        steps = [layer for k in range(couplings) for layer in step(shape, k)]
        return Chain(start, *steps, per_channel(shape), Flatten(shape))
    built, inside = [], shape
    for level in range(levels):
        inside = Squeeze().shape_out(inside)
        steps = [layer for k in range(couplings) for layer in step(inside, k)]
        built.append(Chain(*([start] if level == 0 else []), Squeeze(), *steps, per_channel(inside)))
        inside = (inside[0] // 2, *inside[1:])
    return Multiscale(shape, *built)


def coupling_step(
    element: Callable[[], Elementwise], *, squeezed: bool, width: int, depth: int, condition: int
) -> Step:
    """Couplings in turn: by channels after a squeeze, else by the colours of a checkerboard; vectors by columns."""

    def step(shape: tuple[int, ...], k: int) -> list[Bijection]:
        f = element()
        if len(shape) == 1:
            return [column_coupling(shape[0], k, f, width, depth, condition)]
        return [Coupling(_keep(shape, k, squeezed), ConvCoupling(shape[0], f.size, width, depth, condition), f)]

    return step


def mixed(step: Step, kind: Literal["lu", "plain"] = "lu") -> Step:
    """Each coupling after an activation normalisation and an invertible matrix over channels (Glow, figure 2a).

    The matrix starts at a random rotation for images. For vectors it starts at the identity: columns that are alike,
    such as pixels, are then told from each other at once (bsds300, 300 updates: 3 nats more).
    """

    def glow(shape: tuple[int, ...], k: int) -> list[Bijection]:
        matrix = Linear(shape[0], kind, "identity" if len(shape) == 1 else "rotation")
        return [ActNorm(shape[0], *[1] * (len(shape) - 1)), matrix, *step(shape, k)]

    return glow


def normalised(step: Step) -> Step:
    """Each step after an activation normalisation of its channels or columns."""

    def both(shape: tuple[int, ...], k: int) -> list[Bijection]:
        return [ActNorm(shape[0], *[1] * (len(shape) - 1)), *step(shape, k)]

    return both


def _keep(shape: tuple[int, ...], k: int, squeezed: bool) -> Tensor:
    """Unsqueezed images of several channels alternate pairs of checkerboards with pairs of halves of the channels."""
    if squeezed or (shape[0] > 1 and k % 4 > 1):
        return halves(shape[0], k if squeezed else k - 2).view(-1, 1, 1)
    return checkerboard(shape[1], shape[2], k)


def autoregressive_chain(
    shape: tuple[int, ...],
    element: Callable[[], Elementwise],
    *,
    layers: int,
    width: int,
    depth: int,
    condition: int,
    mix: bool = False,
    inverse: bool = False,
    normalisation: NormalisationName = "activation",
) -> Bijection:
    """Normalisations and masked autoregressive layers over columns, in alternating order; images are flattened.

    `mix`: a learnt invertible matrix before each layer, as in neural spline flows. `inverse`: each layer is inverted,
    so that samples, not densities, take one pass.
    """
    d = math.prod(shape)
    built: list[Bijection] = [Flatten(shape)] if len(shape) > 1 else []
    for k in range(layers):
        f = element()
        net = MaskedDense(d, f.size, width, depth, condition, reverse=k % 2 == 1)
        layer = Autoregressive(net, f)
        if k == 0 or normalisation == "batch":  # later layers keep what the first one has normalised
            built.append(_NORMS[normalisation](d))
        built += [*([Linear(d, start="identity")] if mix else []), Inverted(layer) if inverse else layer]
    return Chain(*built)


def default_sizes(shape: tuple[int, ...], couplings: int, width: int, depth: int) -> tuple[int, int]:
    """(couplings, width), 0 replaced by what fits: 4 a level with 32 channels for images, 8 with 128 units for rows."""
    if couplings < 0 or width < 0:
        raise ValueError(f"Expected couplings and width >= 0 (0: chosen by the data), got {couplings} and {width}.")
    if depth < 0:
        raise ValueError(f"Expected depth >= 0 residual blocks, got {depth}.")
    image = len(shape) == 3
    return couplings or (4 if image else 8), width or (32 if image else 128)


def check_sizes(**sizes: int) -> None:
    """A ValueError for any of these options below one, `depth` below zero."""
    for name, value in sizes.items():
        least = 0 if name == "depth" else 1
        if value < least:
            raise ValueError(f"Expected {name} >= {least}, got {value}.")
