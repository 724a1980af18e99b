"""How the learning rate goes over a run, as a share of its highest value.

The run is a line from 0 to 1: steps of all steps, or conversations of all conversations where the run is given in
epochs (how many steps these will make is not known before all of them have been prepared). A step stands at its
middle. Five steps with warmup 0.4, cosine:

    step       0     1     2     3     4
    place     0.1   0.3   0.5   0.7   0.9
    factor   0.25  0.75  0.93  0.50  0.07      0.1 / 0.4, 0.3 / 0.4, then (1 + cos(pi * (place - 0.4) / 0.6)) / 2

so that no step is lost at a rate of 0.
"""

from __future__ import annotations

import math

from qwen3vl.train.settings import TrainSettings


def rate_factor(settings: TrainSettings, place: float) -> float:
    """The share of the highest rate at `place` in 0..1."""
    if place < settings.warmup:
        return place / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "wsd":
        left = (1 - place) / settings.decay if settings.decay else 1.0
        return settings.final_share + (1 - settings.final_share) * max(0.0, min(1.0, left))
    done = min(1.0, (place - settings.warmup) / max(1 - settings.warmup, 1e-9))
    return settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * done)) / 2


def middle(before: float, after: float, total: float) -> float:
    """Where a step stands that leads from `before` to `after` of `total`."""
    return min(1.0, (before + after) / 2 / total)
