"""One video as the remote wants it: the whole file, or its sampled frames with their times.

Frames are chosen and sized by this package's own rules (processor/video.py), so that their times are the file's
true ones and every MediaOption can be honoured; a whole file is sampled by the server, by its own.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from qwen3vl.errors import MediaDecodeError, MediaTooLarge
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.resize import check_ratio, resize_pixels
from qwen3vl.processor.video import choose_frames
from qwen3vl.processor.video_clip import Clip, ShownFrame, is_animated_webp, open_media, open_source
from qwen3vl.processor.video_size import resized_frame_size
from qwen3vl.remote.pictures import data_uri, png_bytes, released_settings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import MediaReceipt, VideoPart

_UNKNOWN = "grid and tokens as the server makes them are not known here; the digest is of the bytes sent"
_JPEG_QUALITY = 95  # frames of a file have lost more than this in its codec; PNG is ten times the bytes
_RATE_TOLERANCE = 0.05  # seconds; times are told to the model with one decimal


@dataclass(frozen=True, slots=True)
class SentFrames:
    """Encoded frames in order, and the time in seconds that the model is told for each."""

    urls: tuple[str, ...]
    times: tuple[float, ...]
    receipt: MediaReceipt

    @property
    def rate(self) -> float | None:
        """Frames per second, if that alone tells the times of all frames: an even row that begins at 0.

        Times 0.0, 0.5, 1.0 have the rate 2.0; 10.0, 10.5 (a part of a video) and 0.0, 0.1, 3.0 have none.
        """
        times = np.array(self.times)
        if len(times) < 2 or times[-1] <= 0:
            return None
        rate = (len(times) - 1) / float(times[-1])
        return rate if np.abs(times - np.arange(len(times)) / rate).max() <= _RATE_TOLERANCE else None


@dataclass(frozen=True, slots=True)
class SentFile:
    url: str
    receipt: MediaReceipt


def encode_file(part: VideoPart, policy: MediaPolicy) -> SentFile | None:
    """The whole file as a data URI, once its first frame could be decoded; None for what is no video file
    (a list of frames, an animated WebP). Raises MediaError."""
    media = open_source(part, policy)
    if not isinstance(media, Media) or is_animated_webp(media):
        return None
    with media.open() as file:
        size = file.seek(0, io.SEEK_END)
        if size > policy.max_bytes:
            raise MediaTooLarge(f"{media.name}: {size} bytes, above the limit of {policy.max_bytes} (max_bytes)")
        file.seek(0)
        data = file.read()
    if policy.isolate:
        from qwen3vl.processor import isolation

        receipt = isolation.run(_look, media, policy, policy=policy, name=media.name)
    else:
        receipt = _look(media, policy)
    return SentFile(data_uri(data, _media_type(data)), replace(receipt, digest=hashlib.sha256(data).hexdigest()))


def encode_frames(part: VideoPart, options: MediaOptions, policy: MediaPolicy) -> SentFrames:
    """The frames that a local model would see, each as a data URI: JPEG for those of a file, PNG for a list's.

    Raises MediaError, InvalidParams, InvalidMessage as `prepare_video` does.
    """
    source = open_source(part, policy)
    if not isinstance(source, Media):
        return _encode_clip(source, options)
    if policy.isolate:
        from qwen3vl.processor import isolation

        return isolation.run(_encode_media, source, options, policy, policy=policy, name=source.name)
    return _encode_media(source, options, policy)


def _look(media: Media, policy: MediaPolicy) -> MediaReceipt:
    with open_media(media, policy) as clip:
        first = next(iter(clip.frames([0])), None)
        if first is None:
            raise MediaDecodeError(f"{media.name}: its first frame cannot be decoded")
        height, width = first.pixels.shape[:2]
        return MediaReceipt(
            kind="video",
            source=clip.name,
            digest="",
            original_size=first.stored_size,
            resized_size=(width, height),
            grid_thw=(0, 0, 0),
            num_tokens=0,
            orientation=first.rotation,
            duration=clip.end,
            notes=(*clip.notes, "sent whole: the server chooses the frames and their times", _UNKNOWN),
        )


def _encode_media(media: Media, options: MediaOptions, policy: MediaPolicy) -> SentFrames:
    with open_media(media, policy) as clip:
        return _encode_clip(clip, options)


def _encode_clip(clip: Clip, options: MediaOptions) -> SentFrames:
    settings = released_settings("video")
    choice = choose_frames(clip, settings, options)
    told = dict(zip(choice.indices, choice.told, strict=True))
    sent = _Frames()
    for frame in clip.frames(choice.indices):
        if sent.first is None:
            height, width = frame.pixels.shape[:2]
            check_ratio(height, width, clip.name)
            sent.first, sent.size = frame, resized_frame_size(len(told), height, width, settings, options)
        sent.add(frame, lossless=clip.is_list)
    if sent.first is None:
        raise MediaDecodeError(f"{clip.name}: none of {len(told)} frames could be decoded")
    missing = len(told) - len(sent.numbers)
    lost = (f"{missing} of {len(told)} frames could not be decoded",) if missing else ()
    receipt = MediaReceipt(
        kind="video",
        source=clip.name,
        digest=sent.sha.hexdigest(),
        original_size=sent.first.stored_size,
        resized_size=sent.size[::-1],
        grid_thw=(0, 0, 0),
        num_tokens=0,
        orientation=sent.first.rotation,
        frame_indices=tuple(sent.numbers),
        frame_times=tuple(clip.times_N[sent.numbers].tolist()),
        timestamps=tuple(told[number] for number in sent.numbers),
        duration=clip.end,
        notes=(*clip.notes, *choice.notes, *lost, *sent.notes, _UNKNOWN),
    )
    return SentFrames(tuple(sent.urls), receipt.timestamps, receipt)


class _Frames:
    """Collects encoded frames, all resized to the (height, width) chosen at the first."""

    def __init__(self) -> None:
        self.first: ShownFrame | None = None
        self.size = (0, 0)
        self.numbers: list[int] = []
        self.urls: list[str] = []
        self.notes: dict[str, None] = {}  # a set that keeps its order
        self.sha = hashlib.sha256()

    def add(self, frame: ShownFrame, *, lossless: bool) -> None:
        data = _frame_bytes(resize_pixels(frame.pixels, self.size), lossless=lossless)
        self.sha.update(data)
        self.urls.append(data_uri(data, "image/png" if lossless else "image/jpeg"))
        self.numbers.append(frame.number)
        self.notes.update(dict.fromkeys(frame.notes))


def _frame_bytes(pixels: np.ndarray, *, lossless: bool) -> bytes:
    if lossless:
        return png_bytes(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()


_SIGNATURES: Sequence[tuple[int, bytes, str]] = (
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"FLV", "video/x-flv"),
    (0, b"GIF8", "image/gif"),
    (0, b"OggS", "video/ogg"),
)


def _media_type(data: bytes) -> str:
    return next((kind for at, mark, kind in _SIGNATURES if data.startswith(mark, at)), "video/mp4")
