"""Where in frequency samples part from data: radial power spectrum and discrete cosine transform."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genrep.evaluation.arrays import group_of
from genrep.evaluation.estimate import Estimate, jackknifed


def _grey(images: Tensor, name: str) -> Tensor:
    if images.ndim != 4 or min(images.shape[2:]) < 2 or len(images) < 2:
        raise ValueError(f"Expected {name} images (B, C, H, W) with B, H and W at least 2, got {tuple(images.shape)}.")
    bad = (~images.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        raise ValueError(f"Expected finite {name} images, but image {int(bad[0])} is not.")
    return images.detach().double().mean(1)


def radial_power(images: Tensor) -> Tensor:
    """Mean power at each radius of the 2-D Fourier transform of the grey image, per image: (B, R).

    |FFT(x)|^2 / (H W), averaged over the ring of frequencies whose radius rounds to r, in units of the lowest
    frequency; r = 0 is the mean. R = min(H, W) // 2 + 1: the corners of the square are left out. White noise is flat.
    """
    x = _grey(images, "the")
    h, w = x.shape[1:]
    power = torch.fft.fft2(x).abs().square() / (h * w)
    side = min(h, w)
    fy, fx = torch.fft.fftfreq(h, device=x.device) * side, torch.fft.fftfreq(w, device=x.device) * side
    radius = torch.hypot(fy[:, None], fx).round().long().flatten()
    kept = radius <= side // 2
    rings = power.new_zeros(len(x), side // 2 + 1)
    rings.index_add_(1, radius[kept], power.flatten(1)[:, kept])
    return rings / radius[kept].bincount()


def cosine_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II, (n, n): D x are the coefficients of x.

    >>> bool(torch.allclose(cosine_matrix(8) @ cosine_matrix(8).T, torch.eye(8).double()))
    True
    """
    k, t = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    matrix = (2 / n) ** 0.5 * torch.cos(math.pi * k * (2 * t + 1) / (2 * n))
    matrix[0] /= 2**0.5
    return matrix


def cosine_power(images: Tensor) -> Tensor:
    """Squared coefficients of the orthonormal 2-D cosine transform of the grey image, (B, H, W)."""
    x = _grey(images, "the")
    rows, columns = (cosine_matrix(n).to(x.device) for n in x.shape[1:])
    return (rows @ x @ columns.T).square()


class SpectralGap(NamedTuple):
    radial: Estimate
    cosine: Estimate
    real: Tensor  # (R,) mean radial power, for the figure
    generated: Tensor


def spectral_gap(
    *,
    real: Tensor,
    generated: Tensor,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> SpectralGap:
    """Mean |log10 power of generated - log10 power of real| over radii, and over cosine coefficients.

    Images are (B, C, H, W). One unit is a factor of ten. Power that neither set has is left out; the plug-in
    value is positive for equal distributions at finite B. Reference for the cosine spectrum as a diagnosis: Frank et
    al. (2020), section 3.
    """
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(f"Expected equal image shapes, got {tuple(real.shape)} and {tuple(generated.shape)}.")
    n = len(real), len(generated)
    g_real, g_generated = (group_of(size, groups, seed + i).to(real.device) for i, size in enumerate(n))
    found = []
    for name, transform in (("radial", radial_power), ("cosine", lambda x: cosine_power(x).flatten(1))):
        a, b = _group_sums(transform(real), g_real, groups), _group_sums(transform(generated), g_generated, groups)
        value = _gap(a.sum(0), b.sum(0), n)
        replicates = [
            _gap(a.sum(0) - a[g], b.sum(0) - b[g], (_rest(g_real, g), _rest(g_generated, g))) for g in range(groups)
        ]
        found.append(
            jackknifed(
                value,
                replicates,
                n=n,
                protocol=protocol,
                level=level,
                seed=seed,
                metric=f"{name} spectral gap",
                estimator=f"plug-in, jackknife {groups}",
            )
        )
    return SpectralGap(found[0], found[1], radial_power(real).mean(0), radial_power(generated).mean(0))


def _group_sums(values: Tensor, group: Tensor, groups: int) -> Tensor:
    return values.new_zeros(groups, values.shape[1]).index_add_(0, group, values)


def _rest(group: Tensor, g: int) -> int:
    return int((group != g).sum())


def _gap(a: Tensor, b: Tensor, n: Sequence[int]) -> float:
    floor = 1e-12 * float(torch.maximum(a / n[0], b / n[1]).max())  # below it, a double holds rounding only
    a, b = (a / n[0]).clamp(min=floor), (b / n[1]).clamp(min=floor)
    present = (a > floor) | (b > floor)
    return float((b[present].log10() - a[present].log10()).abs().mean()) if present.any() else 0.0
