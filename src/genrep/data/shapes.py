"""`shapes`: small colour images whose factors of variation are known, drawn by formulas.

Every image is one of the combinations of the six factors; 12,000 of the 36,864 are drawn without replacement from a
fixed generator, so the set is the same everywhere. The outline is that of a signed distance, smoothed over one pixel.
"""

from __future__ import annotations

import colorsys

import numpy as np

FACTORS = {"shape": 3, "x": 8, "y": 8, "scale": 4, "rotation": 8, "colour": 6}  # and how many values each has
SHAPES = ("square", "ellipse", "triangle")
SIDE = 32
_TRAIN, _TEST = 10_000, 2_000
_CHUNK = 1000


def factors(index: np.ndarray) -> np.ndarray:
    """Values of the six factors, (N, 6) int64, of combinations by number, (N,) in [0, 36864)."""
    return np.stack(np.unravel_index(index, tuple(FACTORS.values())), axis=1).astype(np.int64)


def draw(values: np.ndarray) -> np.ndarray:
    """Images (N, 3, 32, 32) uint8 of factor values (N, 6).

    x and y are the centre, at 10 + 12 k / 7 pixels; scale the radius, 4 + 4 k / 3 pixels; rotation 90 k / 8 degrees, in
    which none of the shapes repeats itself; colour a hue of k / 6. The background is black.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != len(FACTORS):
        raise ValueError(f"Expected values of the factors {', '.join(FACTORS)}, (N, 6), got shape {values.shape}.")
    for (name, count), column in zip(FACTORS.items(), values.T, strict=True):
        if len(column) and not (0 <= column.min() and column.max() < count):
            raise ValueError(f"Expected {name} in 0..{count - 1}, got {column.min()}..{column.max()}.")
    parts = [_draw(values[i : i + _CHUNK]) for i in range(0, len(values), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, 3, SIDE, SIDE), np.uint8)


def _draw(values: np.ndarray) -> np.ndarray:
    shape, x, y, scale, rotation, colour = (column[:, None, None] for column in values.T)
    axis = np.arange(SIDE, dtype=np.float32)
    u, v = axis[None, None, :] - (10 + x * 12 / 7), axis[None, :, None] - (10 + y * 12 / 7)
    radius, angle = (4 + scale * 4 / 3).astype(np.float32), (rotation * np.pi / 16).astype(np.float32)
    u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    square = np.maximum(np.abs(u), np.abs(v)) - 0.8 * radius
    ellipse = (np.hypot(u / radius, v / (0.5 * radius)) - 1) * 0.5 * radius
    slanted = np.sqrt(0.75) * np.abs(u)
    triangle = np.maximum(v, slanted - 0.5 * v) - 0.5 * radius
    inside = np.clip(0.5 - np.choose(shape, [square, ellipse, triangle]), 0, 1)
    hues = np.array([colorsys.hsv_to_rgb(k / FACTORS["colour"], 1, 1) for k in range(FACTORS["colour"])])
    painted = inside[:, None] * hues[colour[:, 0, 0]][:, :, None, None]
    return np.rint(255 * painted).astype(np.uint8)


def combinations() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the combinations for training and test; no one is in both."""
    order = np.random.RandomState(0).permutation(int(np.prod(list(FACTORS.values()))))
    return order[:_TRAIN], order[_TRAIN : _TRAIN + _TEST]
