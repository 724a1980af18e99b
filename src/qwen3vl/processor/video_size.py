"""The one size to which all sampled frames of a video are resized.

Worked example (factor 32, two frames to a patch): 10 frames of 1080 x 1920 under 25,165,824 pixels.
    rounded to the factor: 1088 x 1920; 10 * 1088 * 1920 = 20,889,600 fits: 1088 x 1920, 5 * 34 * 60 = 10,200 tokens.
20 frames: 41,779,200 do not fit; beta = sqrt(20 * 1080 * 1920 / 25165824) = 1.2837
    floor(1080 / beta / 32) * 32 = 832, floor(1920 / beta / 32) * 32 = 1472: 10 * 26 * 46 = 11,960 tokens.
"""

from __future__ import annotations

import math

from qwen3vl.errors import InvalidParams, MediaTooLarge
from qwen3vl.processor.settings import FRAME_CAP_TOKENS, MAX_ASPECT_RATIO, VisionSettings
from qwen3vl.settings import MediaOptions


def video_smart_resize(
    num_frames: int,
    height: int,
    width: int,
    temporal_factor: int,
    factor: int,
    min_pixels: int,
    max_pixels: int,
) -> tuple[int, int]:
    """Height and width, multiples of `factor`, with frames x height x width within the bounds.

    The bounds are tested with `num_frames` rounded to `temporal_factor` (half to even: 5 counts as 4).
    A side never falls below `factor`, even if that exceeds `max_pixels`.

    Raises:
        MediaTooLarge: one side is more than 200 times the other.

    Source: smart_resize in transformers 5.23's video_processing_qwen3_vl.
    """
    assert num_frames >= temporal_factor, (num_frames, temporal_factor)
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise MediaTooLarge(f"{width} x {height} pixels: one side is more than {MAX_ASPECT_RATIO} times the other")
    rounded_h, rounded_w = round(height / factor) * factor, round(width / factor) * factor
    volume = round(num_frames / temporal_factor) * temporal_factor * rounded_h * rounded_w
    if volume > max_pixels:
        beta = math.sqrt(num_frames * height * width / max_pixels)
        return _floor(height / beta, factor), _floor(width / beta, factor)
    if volume < min_pixels:
        beta = math.sqrt(min_pixels / (num_frames * height * width))
        return math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return rounded_h, rounded_w


def _floor(side: float, factor: int) -> int:
    return max(factor, math.floor(side / factor) * factor)


def volume_bounds(num_frames: int, settings: VisionSettings, options: MediaOptions) -> tuple[int, int]:
    """Least and most frames x height x width for a video of `num_frames` sampled frames.

    The checkpoint's bounds, replaced by `total_pixels`, narrowed by `cap_frame_pixels` (as
    cap_pixels_per_frame of transformers 5.23, where the floor of 1.05 minima wins over the share) and
    by `max_pixels` and `min_pixels` of each frame. What the caller did not give makes way.

    Raises:
        InvalidParams: `min_pixels` of each frame is more than the whole video may have.
    """
    temporal = settings.temporal_patch_size
    counted = round(num_frames / temporal) * temporal  # as video_smart_resize counts them
    low = settings.min_pixels if options.min_pixels is None else options.min_pixels * max(counted, num_frames)
    high = settings.max_pixels if options.total_pixels is None else options.total_pixels
    if options.cap_frame_pixels:
        floor = settings.min_pixels if options.min_pixels is None else options.min_pixels
        share = min(FRAME_CAP_TOKENS * settings.factor**2, high // num_frames)
        high = max(share, int(floor * 1.05)) * num_frames
    if options.max_pixels is not None:
        high = min(high, options.max_pixels * min(counted, num_frames))
    if options.min_pixels is not None and low > high:
        raise InvalidParams(
            f"min_pixels={options.min_pixels} for each of {num_frames} frames makes {low} pixels, but the whole "
            f"video may have {high}: lower min_pixels or the number of frames, or raise total_pixels"
        )
    return min(low, high), high


def resized_frame_size(
    num_frames: int, height: int, width: int, settings: VisionSettings, options: MediaOptions
) -> tuple[int, int]:
    """Height and width of the resized frames. Fewer frames than fill a temporal patch count as a full one.

    Raises:
        InvalidParams, MediaTooLarge.
    """
    num_frames = max(num_frames, settings.temporal_patch_size)
    low, high = volume_bounds(num_frames, settings, options)
    return video_smart_resize(
        num_frames, height, width, settings.temporal_patch_size, settings.factor, min_pixels=low, max_pixels=high
    )


def grid_of(num_frames: int, height: int, width: int, settings: VisionSettings) -> tuple[int, int, int]:
    """grid_thw of `num_frames` frames that have been resized to height x width."""
    temporal = math.ceil(num_frames / settings.temporal_patch_size)
    return temporal, height // settings.patch_size, width // settings.patch_size
