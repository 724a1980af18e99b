"""How far a measured value may be off: 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qwen3vl.train.metrics import Metric

Z95 = 1.959964  # of the normal distribution, two-sided
RESAMPLES = 1000
_SEED = 20240607  # fixed: the same answers give the same interval


def interval(samples: Sequence[Metric]) -> tuple[float, float] | None:
    """Of sum(part) / sum(whole): Wilson's where every sample is right or wrong, else the bootstrap over samples.

    None where nothing was measured.
    """
    measured = [m for m in samples if m.whole]
    if not measured:
        return None
    if all(m.whole == 1 and m.part in (0, 1) for m in measured):
        return wilson(int(sum(m.part for m in measured)), len(measured))
    return bootstrap(measured)


def wilson(right: int, number: int) -> tuple[float, float]:
    """Wilson 1927. Worked example: 9 of 10 right is 0.596 to 0.982, and 10 of 10 is 0.722 to 1, not 1 to 1."""
    assert 0 <= right <= number and number > 0, (right, number)
    share, square = right / number, Z95**2
    centre = share + square / (2 * number)
    spread = Z95 * math.sqrt(share * (1 - share) / number + square / (4 * number**2))
    low, high = (centre - spread) / (1 + square / number), (centre + spread) / (1 + square / number)
    return max(0.0, low) if right else 0.0, min(1.0, high) if right < number else 1.0


def bootstrap(samples: Sequence[Metric]) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) of the quotient of sums, 1000 draws of whole samples, always the same ones."""
    parts, wholes = np.array([m.part for m in samples]), np.array([m.whole for m in samples])
    random = np.random.default_rng(_SEED)
    values = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(samples), len(samples))
        values.append(parts[drawn].sum() / wholes[drawn].sum())
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
