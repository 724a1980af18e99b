"""Which frames of a video the model sees, and what it is told about their times. Pure arithmetic.

Worked example: 60 s at 30 frames per second (1800 frames), two frames per second wanted.
    num_sampled_frames(1800, 30.0, ...) = int(1800 / 30 * 2) = 120
    spread_indices(0, 1799, 120)        = [0, 15, 30, 45, 60, 76, ...]    round(i * 1799 / 119)
    their times                         = [0.0, 0.5, 1.0, 1.5, 2.0, 2.533, ...]
    patch_times(times, 2)               = [0.25, 1.25, 2.267, ...]        the mean of each pair
    timestamp_text                      -> "<0.2 seconds>", "<1.2 seconds>", "<2.3 seconds>"

Sources: transformers 5.23, Qwen3VLVideoProcessor.sample_frames and Qwen3VLProcessor._calculate_timestamps.
"""

from __future__ import annotations

import math

import numpy as np

from qwen3vl.errors import InvalidParams
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions

# Container clocks tick in milliseconds or finer; a bound given in decimals must not miss a frame at it.
_TIME_TOLERANCE = 1e-3


def num_sampled_frames(
    num_frames: float, fps: float, options: MediaOptions, settings: VisionSettings, available: int | None = None
) -> int:
    """How many of `num_frames` frames at `fps` frames per second are sampled.

    Never more than exist: `available`, by default `num_frames`, whatever min_frames says. Seconds and a rate
    of 1 serve as well (variable rates, where frames are no measure of time).
    """
    available = int(num_frames) if available is None else available
    if options.num_frames is not None:
        return min(options.num_frames, available)
    wanted = settings.fps if options.fps is None else options.fps
    low, high = frame_bounds(options, settings)
    return max(1, min(max(int(num_frames / fps * wanted), low), high, available))


def frame_bounds(options: MediaOptions, settings: VisionSettings) -> tuple[int, int]:
    """min_frames and max_frames; one that the caller gave moves the checkpoint's other one out of its way."""
    low, high = options.min_frames, options.max_frames
    if low is None:
        low = settings.min_frames if high is None else min(settings.min_frames, high)
    if high is None:
        high = max(settings.max_frames, low)
    return low, high


def spread_indices(first: int, last: int, count: int) -> np.ndarray:
    """`count` frame indices spread evenly over first..last (both included), rounded half to even."""
    return np.linspace(first, last, count).round().astype(np.int64)


def spread_in_time(times: np.ndarray, first: int, last: int, count: int) -> np.ndarray:
    """`count` distinct frame indices in first..last, each the nearest to an instant evenly spread in time.

    `times` are the frames' times in seconds, rising. Where frames are rarer than the instants, the
    neighbours that are free are taken, so that `count` frames come out whenever there are so many.

    Times 0.0, 0.1, 0.2, 0.3, 5.0, 10.0 and count 3: instants 0, 5, 10 give frames 0, 4, 5 (by index: 0, 2, 5).
    """
    window = times[first : last + 1]
    count = min(count, len(window))
    instants = np.linspace(window[0], window[-1], count)
    right = np.searchsorted(window, instants).clip(1, max(1, len(window) - 1))
    left = right - 1
    right = right.clip(max=len(window) - 1)
    nearest = np.where(instants - window[left] <= window[right] - instants, left, right)
    ranks = np.arange(count)
    # Strictly rising: no index below its predecessor + 1, none so high that its successors lack room.
    rising = np.maximum.accumulate(nearest - ranks) + ranks
    return first + np.minimum(rising, len(window) - count + ranks)


def has_constant_rate(times: np.ndarray) -> bool:
    """Whether every frame lies within half a frame of its place in an even row (clocks of containers round)."""
    if len(times) < 3:
        return True
    even = np.linspace(times[0], times[-1], len(times))
    return bool(np.abs(times - even).max() < 0.5 * (times[-1] - times[0]) / (len(times) - 1))


def frames_between(times: np.ndarray, end: float, start: float | None, stop: float | None) -> tuple[int, int]:
    """First and last index of the frames whose times lie in start..stop (None: unbounded).

    A part between two frames shows the earlier one, so that one is taken.

    Args:
        times: of the frames, in seconds, rising.
        end: when the last frame stops being shown.

    Raises:
        InvalidParams: nothing is shown in that part of the video.
    """
    first = 0 if start is None else int(np.searchsorted(times, start - _TIME_TOLERANCE))
    last = len(times) - 1 if stop is None else int(np.searchsorted(times, stop + _TIME_TOLERANCE, side="right")) - 1
    if first <= last:
        return first, last
    if last >= 0 and (start is None or start < end):
        return last, last
    wanted = f"video_start={start} to video_end={stop}" if stop is not None else f"video_start={start}"
    raise InvalidParams(f"{wanted}: the video has frames from {times[0]:.3f} s to {end:.3f} s only")


def patch_times(frame_times: list[float], temporal_patch_size: int) -> list[float]:
    """One time per temporal patch: the mean of its first and last frame's; an odd rest repeats the last frame.

    patch_times([0.0, 0.5, 1.0], 2) = [0.25, 1.0]
    """
    padded = frame_times + frame_times[-1:] * (-len(frame_times) % temporal_patch_size)
    step = temporal_patch_size
    return [(padded[i] + padded[i + step - 1]) / 2 for i in range(0, len(padded), step)]


def timestamp_text(seconds: float) -> str:
    """What stands before a temporal patch in the prompt. Python's rounding: 0.25 -> "<0.2 seconds>"."""
    return f"<{seconds:.1f} seconds>"


def sane_rate(average_rate: float | None, times: np.ndarray) -> float | None:
    """The file's average frame rate if its frames bear it out, else the rate measured from them.

    Matroska headers are known to state rates such as 1000 for 30 frames per second. None for a single
    frame without a rate.
    """
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    measured = (len(times) - 1) / span if span > 0 else None
    if average_rate is None or not math.isfinite(average_rate) or average_rate <= 0:
        return measured
    # One frame's worth of slack: headers count the last frame's duration or not.
    slack = 1.0 + 2.0 / len(times) + 0.05
    if measured is not None and not (measured / slack <= average_rate <= measured * slack):
        return measured
    return average_rate
