"""Scores of images and class probabilities: Inception score, absolute error, PSNR, MS-SSIM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.evaluation.arrays import group_of
from genrep.evaluation.estimate import Estimate, estimate


def inception_score(
    probabilities: Tensor,
    *,
    splits: int = 10,
    seed: int = 0,
    level: float = 0.95,
    protocol: Mapping[str, Any] | None = None,
) -> Estimate:
    """Inception score exp E KL(p(y|x) || p(y)) from class probabilities (N, C) of generated images, over splits.

    Between 1 and C. The standard error is that of the mean over splits. The logarithm is biased, by at most about
    (C - 1) / (2 N/splits), so scores compare only at equal N/splits.

    Reference: Salimans et al. (2016), section 4.
    """
    p = probabilities.detach().double()
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"Expected probabilities of shape (N, C) with C >= 2, got {tuple(p.shape)}.")
    bad = ((p < 0).any(1) | ~((p.sum(1) - 1).abs() < 1e-3)).nonzero()  # ~(<): NaN is bad too
    if len(bad):
        raise ValueError(f"Expected rows of probabilities that sum to 1, but row {int(bad[0])} does not.")
    if splits < 2:
        raise ValueError(f"Expected at least 2 splits for a standard error, got {splits}.")
    group = group_of(len(p), splits, seed)
    scores = torch.stack([_score(p[group == g]) for g in range(splits)])
    return estimate(
        float(scores.mean()),
        float(scores.std()) / splits**0.5,
        n=(0, len(p)),
        degrees=splits - 1,
        protocol=protocol,
        level=level,
        metric="inception score",
        estimator=f"{splits} splits",
        seed=seed,
    )


def _score(p: Tensor) -> Tensor:
    marginal = p.mean(0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()


def _images(x: Tensor, y: Tensor, top: float) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.ndim != 4 or not len(x):
        raise ValueError(f"Expected two equal shapes (B, C, H, W), got {tuple(x.shape)} and {tuple(y.shape)}.")
    pair = x.detach().double(), y.detach().double()
    for name, t in zip(("the first", "the second"), pair, strict=True):
        bad = (~((t >= 0) & (t <= top)).flatten(1).all(1)).nonzero()
        if len(bad):
            raise ValueError(
                f"Expected images within [0, {top:g}], but image {int(bad[0])} of {name} is not; convert it."
            )
    return pair


def absolute_error(x: Tensor, y: Tensor, *, top: float = 1.0) -> Tensor:
    """Mean |x - y| of each image, (B,), in units of the values; x and y (B, C, H, W) within [0, top]."""
    a, b = _images(x, y, top)
    return (a - b).abs().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, *, top: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(top^2 / mean squared error) of each image, (B,), in dB; infinite if equal."""
    a, b = _images(x, y, top)
    return 10 * (top**2 / (a - b).square().flatten(1).mean(1)).log10()


SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(x: Tensor, y: Tensor, *, top: float = 1.0, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Multi-scale structural similarity of each image, (B,), at most 1; x and y (B, C, H, W) within [0, top].

        l^{w_S} prod_s c_s^{w_s},    c_s = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2),    l = SSIM at the coarsest scale S

    C1 = (0.01 top)^2, C2 = (0.03 top)^2, Gaussian window, valid parts only, 2 x 2 means between scales. Five scales
    need sides of 176 or more; a smaller image uses the scales that leave a full window (28 x 28: two), with the
    published weights renormalised to one; such a value compares only with others of its size. A negative factor
    counts as zero.
    Reference: Wang, Simoncelli & Bovik (2003), eq. 7 and section 3.2.
    """
    a, b = _images(x, y, top)
    side, scales = min(a.shape[2:]), 0
    while scales < len(SCALE_WEIGHTS) and side // 2**scales >= window:
        scales += 1
    if not scales:
        raise ValueError(
            f"Expected images of at least {window} x {window}, got {tuple(a.shape[2:])}; use a smaller window."
        )
    weights = torch.tensor(SCALE_WEIGHTS[:scales], dtype=torch.float64, device=a.device)
    weights, result = weights / weights.sum(), a.new_ones(a.shape[:2])
    for s in range(scales):
        luminance, contrast = _similarity(a, b, top, window, sigma)
        last = s == scales - 1
        result = result * (luminance if last else contrast).clamp(min=0) ** weights[s]
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result.mean(1)


def _similarity(a: Tensor, b: Tensor, top: float, window: int, sigma: float) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor, per channel, (B, C) each."""
    ramp = torch.arange(window, dtype=a.dtype, device=a.device) - (window - 1) / 2
    weight = (-ramp.square() / (2 * sigma**2)).exp()
    weight = weight / weight.sum()
    channels = a.shape[1]
    rows, columns = (
        weight.view(1, 1, -1, 1).expand(channels, 1, -1, 1),
        weight.view(1, 1, 1, -1).expand(channels, 1, 1, -1),
    )

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, rows, groups=channels), columns, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    contrast = (2 * cov + c2) / (var_a + var_b + c2)
    ssim = contrast * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return ssim.mean((2, 3)), contrast.mean((2, 3))
