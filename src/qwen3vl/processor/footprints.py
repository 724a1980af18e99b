"""What a picture or video will take in the prompt, from its header: nothing is decoded.

For a video file the times of all its frames are read (not their pixels), since the frames that are chosen and
their timestamps depend on them. The count then is off only for frames that turn out to be damaged.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from qwen3vl.processor.fetch import Media, MediaPolicy
from qwen3vl.processor.images import load_picture, picture_options
from qwen3vl.processor.placeholders import Footprint
from qwen3vl.processor.probe import check_picture, header_of, picture_grid, probe_picture
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, PictureSource, VideoPart

Size = tuple[int, int]


def picture_footprint(
    part: ImagePart, settings: VisionSettings, options: MediaOptions, policy: MediaPolicy
) -> Footprint:
    """Of a picture. Raises MediaError, InvalidMessage, InvalidParams as `prepare_picture` does."""
    bounds = picture_options(part, options)
    return Footprint("image", picture_grid(_upright_size(part.image, policy), settings, bounds))


def video_footprint(part: VideoPart, settings: VisionSettings, options: MediaOptions, policy: MediaPolicy) -> Footprint:
    """Of a video. Raises as `prepare_video` does, but for what only decoding can show."""
    from qwen3vl.processor.video import choose_frames
    from qwen3vl.processor.video_clip import open_source

    options = options.merged_with(part.media)
    source = open_source(part, policy)
    if not isinstance(source, Media):
        choice = choose_frames(source, settings, options)
        first: PictureSource = part.video[choice.indices[0]]  # type: ignore[index, assignment]
        return _video(choice.told, _upright_size(first, policy), settings, options)
    if policy.isolate:
        from qwen3vl.processor import isolation

        told, size = isolation.run(_look_into, source, settings, options, policy, policy=policy, name=source.name)
    else:
        told, size = _look_into(source, settings, options, policy)
    return _video(told, size, settings, options)


def _look_into(
    media: Media, settings: VisionSettings, options: MediaOptions, policy: MediaPolicy
) -> tuple[tuple[float, ...], Size]:
    """The times of the frames that will be shown, and their (width, height) as stored.

    A rotation would only swap the sides, which leaves the number of tokens as it is.
    """
    from qwen3vl.processor.video import choose_frames
    from qwen3vl.processor.video_clip import FileClip, open_media

    with open_media(media, policy) as clip:
        told = choose_frames(clip, settings, options).told
        if isinstance(clip, FileClip):
            context = clip.file.stream.codec_context
            return told, (context.width, context.height)
    return told, probe_picture(media, policy).size


def _video(told: tuple[float, ...], size: Size, settings: VisionSettings, options: MediaOptions) -> Footprint:
    from qwen3vl.processor.video_sampling import patch_times
    from qwen3vl.processor.video_size import grid_of, resized_frame_size

    width, height = size
    timestamps = patch_times(list(told), settings.temporal_patch_size)
    frame_size = resized_frame_size(len(told), height, width, settings, options)
    grid = grid_of(len(timestamps) * settings.temporal_patch_size, *frame_size, settings)
    return Footprint("video", grid, tuple(timestamps), options.video_markers)


def _upright_size(source: PictureSource, policy: MediaPolicy) -> Size:
    """(width, height) of a picture with its orientation applied."""
    if isinstance(source, np.ndarray):
        return load_picture(source, policy).original_size  # decoded already; this only checks it
    header = header_of(source, "<PIL>") if isinstance(source, Image.Image) else probe_picture(source, policy)
    check_picture(header, policy)
    return header.upright_size
