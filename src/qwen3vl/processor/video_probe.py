"""What a video's header claims - size, rate, length, visual tokens - before anything is decoded.

Headers may lie: the limits hold again while the file is read (video_index) and in the decoder (video_file).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen3vl.errors import InvalidParams, MediaDecodeError, MediaTooLarge
from qwen3vl.processor.fetch import Media, MediaSource, fetch
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.resize import check_ratio
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video_sampling import num_sampled_frames
from qwen3vl.processor.video_size import grid_of, resized_frame_size
from qwen3vl.settings import MediaOptions

if TYPE_CHECKING:
    from qwen3vl.processor.video_file import VideoFile

_FALLBACK_RATE = 24.0


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What is known before decoding; None where the header is silent.

    Attributes:
        name: of the source, for people.
        size: (width, height) as stored. A rotation is only known once a frame is decoded; it swaps the
            sides and leaves the number of tokens as it is.
        fps: average frames per second.
        duration: in seconds.
        num_frames: stated, or estimated from fps and duration.
        codec: libav's name for it, such as "h264".
    """

    name: str
    size: tuple[int, int]
    fps: float | None
    duration: float | None
    num_frames: int | None
    codec: str


def probe_video(source: MediaSource | Media, policy: MediaPolicy) -> VideoHeader:
    """The header of a video file. Raises a MediaError; limits are checked by `check_video`.

    With `policy.isolate` the file is opened in a worker process.
    """
    media = source if isinstance(source, Media) else fetch(source, policy, to_file=True)
    if policy.isolate:
        from qwen3vl.processor import isolation

        return isolation.run(_probe, media, policy, policy=policy, name=media.name)
    return _probe(media, policy)


def _probe(media: Media, policy: MediaPolicy) -> VideoHeader:
    from qwen3vl.processor.video_file import VideoFile

    with VideoFile(media, policy) as file:
        return header_of_file(file)


def header_of_file(file: VideoFile) -> VideoHeader:
    stream, container = file.stream, file.container
    context = stream.codec_context
    rate = float(stream.average_rate or stream.guessed_rate or 0) or None
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / 1_000_000
    num_frames = stream.frames or (math.ceil(duration * rate) if duration and rate else None)
    return VideoHeader(file.name, (context.width, context.height), rate, duration, num_frames, context.codec.name)


def check_video(header: VideoHeader, policy: MediaPolicy) -> None:
    """Raises MediaTooLarge where the header claims more than the policy allows, or a ratio of sides above 200."""
    width, height = header.size
    if width < 1 or height < 1:
        raise MediaDecodeError(f"{header.name}: claims a size of {width}x{height} pixels")
    limits = (
        (width * height, "pixels in a frame", policy.max_pixels, "max_pixels"),
        (header.num_frames or 0, "frames", policy.max_frames, "max_frames"),
        (header.duration or 0.0, "seconds", policy.max_seconds, "max_seconds"),
    )
    for claimed, unit, limit, field in limits:
        if claimed > limit:
            raise MediaTooLarge(
                f"{header.name}: {claimed:.0f} {unit}, above the limit of {limit:.0f} (MediaPolicy.{field})"
            )
    check_ratio(height, width, header.name)


def count_video_tokens(header: VideoHeader, settings: VisionSettings, options: MediaOptions | None = None) -> int:
    """Visual tokens that the video will take, without timestamps and markers; exact if the header is.

    Raises:
        InvalidParams: the header does not tell how many frames there are.
    """
    options = options or MediaOptions()
    rate = header.fps or _FALLBACK_RATE
    if header.num_frames is None:
        raise InvalidParams(f"{header.name}: its header does not tell its length, so its tokens cannot be foretold")
    last = header.num_frames / rate
    start = min(options.video_start or 0.0, last)
    end = last if options.video_end is None else min(options.video_end, last)
    available = max(1, math.ceil((end - start) * rate))
    count = num_sampled_frames(available, rate, options, settings)
    width, height = header.size
    t, h, w = grid_of(count, *resized_frame_size(count, height, width, settings, options), settings)
    return t * h * w // settings.merge_size**2
