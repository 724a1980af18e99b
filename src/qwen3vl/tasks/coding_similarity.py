"""How much a rendering looks like the picture it was made from: one number, 0 to 1.

    0.7 * structure + 0.3 * colour, times the part of the height that both have

structure: SSIM (Wang et al. 2004) of the brightness in 7 x 7 windows, each weighted by the contrast in it, so
that empty ground, which pages are full of, counts little. colour: the overlap of the two histograms of 4 x 4 x 4
colours. Both pictures are first brought to the same width of at most 256 pixels; words are not read, so a page
with other words of the same shape scores high. It tells which of two attempts is closer, not whether one is right.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

WIDTH = 256
WINDOW = 7
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of SSIM, for 8-bit brightness


def similarity(a: Image.Image, b: Image.Image) -> float:
    """0 (nothing in common) to 1 (the same picture); symmetric but for the rounding of sizes."""
    width = max(WINDOW, min(WIDTH, a.width, b.width))
    one, two = _scaled(a, width), _scaled(b, width)
    common = min(one.shape[0], two.shape[0])
    both = common / max(one.shape[0], two.shape[0])
    one, two = one[:common], two[:common]
    return float(both * (0.7 * max(0.0, _structure(_luma(one), _luma(two))) + 0.3 * _colour(one, two)))


def _scaled(picture: Image.Image, width: int) -> np.ndarray:
    height = max(WINDOW, round(picture.height * width / picture.width))
    return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BOX), dtype=np.float64)


def _luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


def _structure(a: np.ndarray, b: np.ndarray) -> float:
    mean_a, mean_b = _means(a), _means(b)
    var_a = np.maximum(_means(a * a) - mean_a**2, 0)
    var_b = np.maximum(_means(b * b) - mean_b**2, 0)
    covariance = _means(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    ssim /= (mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)
    return float(np.average(ssim, weights=var_a + var_b + C2))


def _means(values: np.ndarray) -> np.ndarray:
    """Of every WINDOW x WINDOW square, by differences of sums from the corner."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    n = WINDOW
    return (sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]) / n**2


def _colour(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.minimum(_histogram(a), _histogram(b)).sum())


def _histogram(rgb: np.ndarray) -> np.ndarray:
    cells = (rgb // 64).astype(int) @ np.array([16, 4, 1])
    return np.bincount(cells.ravel(), minlength=64) / cells.size
