"""Pictures and videos in the forms in which transformers' processors take them, prepared as those do.

Beside files these are decoded frames: a tensor or array of shape (frames, 3, height, width) or
(frames, height, width, 3), or a list of pictures, with `video_metadata` (rate, indices) beside it, as
qwen_vl_utils.process_vision_info returns them. Source: transformers 5.23, Qwen3VLVideoProcessor.

Shape names: F frames, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from qwen3vl.errors import InvalidMessage, InvalidParams, InvalidRequest, UnsupportedOption
from qwen3vl.inputs import Visual
from qwen3vl.processor.images import load_picture, prepare_loaded, prepare_picture
from qwen3vl.processor.processor import Processor
from qwen3vl.processor.resize import digest_frames, patchify, resize_pixels
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video_sampling import num_sampled_frames, patch_times, spread_indices
from qwen3vl.processor.video_size import grid_of, resized_frame_size
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, MediaReceipt, VideoPart

_ASSUMED_RATE = 24.0  # transformers' assumption for frames that come without a rate
_SAMPLING = ("fps", "num_frames", "min_frames", "max_frames", "total_pixels", "cap_frame_pixels")
_VIDEO_OPTIONS = (*_SAMPLING[:-1], "cap_pixels_per_frame", "do_sample_frames", "video_metadata", "return_metadata")


@dataclass(frozen=True, slots=True)
class FramesMetadata:
    """What is known of decoded frames: the rate of their file, and which frames of it they are."""

    rate: float | None = None
    indices: tuple[int, ...] | None = None
    total: int | None = None

    @classmethod
    def read(cls, values: Any) -> FramesMetadata:
        """From transformers' VideoMetadata, or a dict like it."""
        if not isinstance(values, Mapping):
            raise InvalidMessage(f"video_metadata: one dict (fps, frames_indices) per video, not {values!r}")
        rate, indices, total = (values.get(key) for key in ("fps", "frames_indices", "total_num_frames"))
        return cls(
            None if rate is None else float(rate),
            None if indices is None else tuple(int(i) for i in indices),
            None if total is None else int(total),
        )


@dataclass(frozen=True, slots=True)
class MediaCall:
    """The options of one processor call that concern pictures and videos.

    Attributes:
        pictures, videos: the settings of each; those of one never bear on the other.
        video_volume: bounds on frames x height x width instead of the checkpoint's.
    """

    pictures: MediaOptions
    videos: MediaOptions
    video_volume: tuple[int, int] | None = None
    resize_pictures: bool = True
    resize_videos: bool = True
    sample_frames: bool = True
    metadata: tuple[FramesMetadata, ...] | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any], where: str) -> MediaCall:
        """transformers' names, flat or nested in images_kwargs and videos_kwargs. Raises UnsupportedOption."""
        flat = dict(options)
        images = {**_taken(flat, "min_pixels", "max_pixels", "do_resize"), **flat.pop("images_kwargs", {})}
        videos = {
            "do_resize": images.get("do_resize"),
            **_taken(flat, *_VIDEO_OPTIONS),
            **flat.pop("videos_kwargs", {}),
        }
        if flat.pop("do_convert_rgb", True) is False:
            raise UnsupportedOption(f"{where}: do_convert_rgb=False cannot be honoured here")
        refuse_options(where, flat)
        if isinstance(videos.get("fps"), (list, tuple)):
            raise UnsupportedOption(f"{where}: a list of fps: give video_metadata, one for each video")
        switches = (_flag(images, "do_resize"), _flag(videos, "do_resize"), _flag(videos, "do_sample_frames"))
        size, volume, metadata = images.pop("size", None), videos.pop("size", None), videos.pop("video_metadata", None)
        if size:
            images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        return cls(
            MediaOptions(**_fields(images, ("min_pixels", "max_pixels"), where)),
            MediaOptions(**_fields(videos, _SAMPLING, where), timestamps="index", video_markers="transformers5"),
            (volume["shortest_edge"], volume["longest_edge"]) if volume else None,
            *switches,
            None if metadata is None else tuple(map(FramesMetadata.read, _as_list(metadata))),
        )


def refuse_options(where: str, options: Mapping[str, Any]) -> None:
    """Options that transformers may know and this package does not are errors, unless they say nothing."""
    unknown = [key for key, value in options.items() if value is not None]
    if unknown:
        raise UnsupportedOption(f"{where}: {', '.join(unknown)} cannot be honoured here")


class Preparer:
    """Prepares the pictures and videos of one call, taking metadata for decoded frames in order."""

    def __init__(self, processor: Processor, call: MediaCall) -> None:
        self._pictures, self._videos, self._call = processor.picture_settings, processor.video_settings, call
        if call.video_volume is not None:
            low, high = call.video_volume
            self._videos = replace(self._videos, min_pixels=low, max_pixels=high)
        self._metadata = None if call.metadata is None else iter(call.metadata)

    def __call__(self, part: ImagePart | VideoPart) -> Visual:
        if isinstance(part, ImagePart):
            return self._picture(part)
        if isinstance(part.video, (str, bytes, os.PathLike)):
            return self._file(part)
        return self._frames(part)

    def check_used_up(self) -> None:
        left = len(list(self._metadata or ()))
        if left:
            raise InvalidMessage(f"video_metadata: {left} more than there are videos as frames")

    def _picture(self, part: ImagePart) -> Visual:
        if self._call.resize_pictures:
            return prepare_picture(part, self._pictures, self._call.pictures, manner="transformers")
        picture = load_picture(part.image, manner="transformers")
        height, width = _kept_size(picture.pixels.shape[:2], self._pictures)
        return prepare_loaded(picture, self._pictures, (1, height * width))

    def _file(self, part: VideoPart) -> Visual:
        from qwen3vl.processor.video import prepare_video

        if not self._call.sample_frames or not self._call.resize_videos or self._metadata is not None:
            raise UnsupportedOption(
                "do_sample_frames=False, do_resize=False and video_metadata are for videos given as frames, not files"
            )
        return prepare_video(part, self._videos, self._call.videos)

    def _frames(self, part: VideoPart) -> Visual:
        frames_FHWC = as_frames(part.video)
        metadata, sample = FramesMetadata(part.frame_rate), self._call.sample_frames and part.frame_rate is None
        if self._metadata is not None:
            given = next(self._metadata, None)
            if given is None:
                raise InvalidMessage("video_metadata: fewer than there are videos as frames")
            metadata, sample = given, self._call.sample_frames
        rate = metadata.rate or _ASSUMED_RATE
        options = self._call.videos.merged_with(part.media)
        if sample:
            indices = _sampled(len(frames_FHWC), rate, metadata, options, self._videos)
            frames_FHWC = frames_FHWC[indices]
        else:
            indices = list(range(len(frames_FHWC)) if metadata.indices is None else metadata.indices)
            if len(indices) != len(frames_FHWC):
                raise InvalidRequest(f"{len(frames_FHWC)} frames, but {len(indices)} frames_indices")
        return _visual(frames_FHWC, [i / rate for i in indices], self._videos, options, self._call.resize_videos)


def split_videos(videos: Any) -> list[Any]:
    """`videos=` of a processor call as one list: a video, a list of them, or a list for each prompt.

    A list of pictures or arrays is one video; a list of paths is as many videos.
    """
    if videos is None:
        return []
    if not isinstance(videos, (list, tuple)) or (videos and all(map(_is_frame, videos))):
        return [videos]
    if all(isinstance(item, (list, tuple)) and item and _is_paths(item[0]) for item in videos):
        return [frames for item in videos for frames in item]  # paths of frames, for each prompt
    return [video for item in videos for video in split_videos(item)]


def as_frames(video: Any) -> np.ndarray:
    """Decoded frames in any form as uint8 (F, H, W, 3). Raises InvalidMessage."""
    if isinstance(video, (list, tuple)) and any(isinstance(frame, Tensor) for frame in video):
        video = [np.asarray(frame) for frame in video]
    if isinstance(video, (list, tuple)) and not isinstance(video[0], np.ndarray):
        frames = [load_picture(frame, manner="transformers").pixels for frame in video]
    else:
        frames = list(np.asarray(video))
    sizes = {frame.shape for frame in frames}
    if len(sizes) != 1:
        raise InvalidMessage(f"the frames of a video must have one size, not {sorted(sizes)}")
    stacked = np.stack(frames)
    if stacked.ndim != 4 or 3 not in (stacked.shape[1], stacked.shape[3]):
        raise InvalidMessage(
            f"frames must be (frames, 3, height, width) or (.., height, width, 3), not {stacked.shape}"
        )
    if stacked.shape[1] == 3:
        stacked = stacked.transpose(0, 2, 3, 1)
    whole = stacked.astype(np.uint8)  # qwen_vl_utils gives whole numbers as floats
    if stacked.dtype != np.uint8 and not np.array_equal(whole, stacked):
        raise InvalidMessage("frames must hold whole numbers from 0 to 255")
    return np.ascontiguousarray(whole)


def _sampled(
    count: int, rate: float, metadata: FramesMetadata, options: MediaOptions, settings: VisionSettings
) -> list[int]:
    if metadata.total not in (None, count):
        raise InvalidRequest(
            f"{count} frames, but total_num_frames={metadata.total}: frames that are sampled already need "
            "do_sample_frames=False"
        )
    wanted = options.num_frames or num_sampled_frames(count, rate, options, settings)
    return spread_indices(0, count - 1, wanted).tolist()


def _visual(
    frames_FHWC: np.ndarray, times: list[float], settings: VisionSettings, options: MediaOptions, resize: bool
) -> Visual:
    count, (height, width) = len(frames_FHWC), frames_FHWC.shape[1:3]
    size = resized_frame_size(count, height, width, settings, options) if resize else (height, width)
    _kept_size(size, settings)
    resized = [resize_pixels(frame, size) for frame in frames_FHWC]
    padded_FHWC = np.stack(resized + resized[-1:] * (-count % settings.temporal_patch_size))
    grid = grid_of(len(padded_FHWC), size[0], size[1], settings)
    receipt = MediaReceipt(
        kind="video",
        source=f"<{count} frames>",
        digest=digest_frames(padded_FHWC, settings),
        original_size=(width, height),
        resized_size=size[::-1],
        grid_thw=grid,
        num_tokens=grid[0] * grid[1] * grid[2] // settings.merge_size**2,
        frame_times=tuple(times),
        timestamps=tuple(patch_times(times, settings.temporal_patch_size)),
    )
    return Visual("video", patchify(list(padded_FHWC), settings), grid, receipt)


def _kept_size(size: Sequence[int], settings: VisionSettings) -> tuple[int, int]:
    """`size` (height, width), which must be one that resizing could have given."""
    height, width = size
    if height % settings.factor or width % settings.factor:
        raise InvalidParams(f"do_resize=False: {width} x {height} pixels are no multiples of {settings.factor}")
    return height, width


def _is_paths(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and bool(item) and isinstance(item[0], str)


def _is_frame(item: Any) -> bool:
    from PIL import Image

    return isinstance(item, Image.Image) or (isinstance(item, (np.ndarray, Tensor)) and item.ndim == 3)


def _taken(options: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Take `keys` out of `options`."""
    return {key: options.pop(key) for key in keys if key in options}


def _flag(options: dict[str, Any], key: str) -> bool:
    value = options.pop(key, None)
    return True if value is None else bool(value)


def _fields(options: dict[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    """Fields of MediaOptions by name; what is left over is refused."""
    if options.pop("return_metadata", None):
        raise UnsupportedOption(f"{where}: return_metadata=True: see the receipts of Processor instead")
    options["cap_frame_pixels"] = options.pop("cap_pixels_per_frame", None) or None
    fields = {key: value for key, value in _taken(options, *names).items() if value is not None}
    refuse_options(where, options)
    return fields


def _as_list(metadata: Any) -> Iterator[Any]:
    """One, a list, or a list per prompt."""
    if isinstance(metadata, (list, tuple)):
        for each in metadata:
            yield from _as_list(each)
    else:
        yield metadata
