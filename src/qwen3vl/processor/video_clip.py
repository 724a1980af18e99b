"""Three kinds of video behind one face: a file, an animated WebP, a list of frames.

Each is a Clip: it knows the times of all its frames, and gives the pixels of chosen ones, upright, one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL.ImageFile import ImageFile

from qwen3vl.errors import InvalidMessage, MediaDecodeError, MediaTooLarge
from qwen3vl.processor.fetch import Media, fetch
from qwen3vl.processor.images import load_picture
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.probe import check_picture, header_of, open_picture
from qwen3vl.processor.video_file import Deadline, VideoFile
from qwen3vl.processor.video_index import check_seconds
from qwen3vl.processor.video_probe import check_video, header_of_file
from qwen3vl.types import PictureSource, VideoPart

DEFAULT_LIST_RATE = 2.0  # frames per second of a list without a rate or times: qwen-vl-utils' default


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """One frame as a player shows it.

    Attributes:
        number: in the clip.
        pixels: uint8 RGB (H, W, 3), upright.
        stored_size: (width, height) before the rotation.
        rotation: clockwise degrees that were applied: 0, 90, 180 or 270.
        notes: what else was done to it.
    """

    number: int
    pixels: np.ndarray
    stored_size: tuple[int, int]
    rotation: int = 0
    notes: tuple[str, ...] = ()


class Clip(Protocol):
    """Attributes:
    name: for people.
    times_N: of all frames, in seconds, rising.
    end: when the last frame stops being shown, in seconds.
    average_rate: frames per second as the source states them, if it does.
    is_list: frames that the caller chose; without a wish for fewer, all of them are used.
    notes: what a person should know.
    """

    name: str
    times_N: np.ndarray
    end: float
    average_rate: float | None
    is_list: bool
    notes: tuple[str, ...]

    def frames(self, wanted: Sequence[int]) -> Iterator[ShownFrame]:
        """The frames `wanted` (rising) in order; what cannot be decoded is left out."""
        ...


def open_source(part: VideoPart, policy: MediaPolicy) -> Media | ListClip:
    """What `part` holds: a file, fetched but not opened, or a list of frames. Raises MediaError, InvalidMessage."""
    source = part.video
    if isinstance(source, (str, bytes, bytearray, memoryview)) or hasattr(source, "__fspath__"):
        if part.frame_rate is not None or part.frame_times is not None:
            raise InvalidMessage("frame_rate and frame_times belong to lists of frames; a file has its own times")
        return fetch(source, policy, to_file=True)  # type: ignore[arg-type]
    if isinstance(source, np.ndarray) and source.ndim == 4:
        source = list(source)
    if not isinstance(source, Sequence):
        raise InvalidMessage(f"a video is a path, a URL, bytes or a list of frames, not {type(source).__name__}")
    return ListClip(source, part, policy)  # type: ignore[arg-type]


def open_media(media: Media, policy: MediaPolicy) -> FileClip | AnimatedWebp:
    """A fetched file as a Clip, to be used in a `with` statement. Raises MediaError."""
    return AnimatedWebp(media, policy) if is_animated_webp(media) else FileClip(media, policy)


# -------------------------------------------------------------------------------------------- files


class FileClip:
    """A video file, decoded by PyAV. See video_index for what its times mean."""

    is_list = False

    def __init__(self, media: Media, policy: MediaPolicy) -> None:
        self.name = media.name
        self.file = VideoFile(media, policy)
        try:
            check_video(header_of_file(self.file), policy)
            self.index = self.file.read_index()
        except BaseException:
            self.file.container.close()
            raise
        self.times_N, self.end = self.index.times_N, self.index.end
        self.average_rate = self.index.average_rate
        self.notes = self.index.notes
        if self.file.num_video_streams > 1:
            self.notes += (f"stream {self.file.stream.index} of {self.file.num_video_streams} video streams",)

    def __enter__(self) -> FileClip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.container.close()

    def frames(self, wanted: Sequence[int]) -> Iterator[ShownFrame]:
        matrix, converter = None, VideoReformatter()  # one for the file: a new one prepares its tables again
        for number, frame in self.file.decode(self.index, wanted):
            # Once for the file: frame.side_data and its frame refer to each other, so every frame asked
            # for it would stay in memory until the garbage collector comes.
            matrix = display_matrix(frame) if matrix is None else matrix
            pixels, over_white = rgb_pixels(frame, converter)
            upright, rotation, turned = upright_pixels(pixels, matrix)
            notes = tuple(note for note in (over_white, turned) if note)
            yield ShownFrame(number, upright, (frame.width, frame.height), rotation, notes)


def rgb_pixels(frame: VideoFrame, converter: VideoReformatter) -> tuple[np.ndarray, str | None]:
    """uint8 (H, W, 3) as PyAV converts it, transparency laid over white, and a note if there was any."""
    if not any(component.is_alpha for component in frame.format.components):
        return converter.reformat(frame, format="rgb24", threads=1).to_ndarray(), None
    rgba = converter.reformat(frame, format="rgba", threads=1).to_ndarray()
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3]), None
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8), "transparency laid over white"


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d of the frame's display matrix: a source point (p, q) is shown at (a p + c q, b p + d q)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(cast(Any, data)), np.int32)[:5])  # rows a b u, c d v
    return a, b, c, d


def upright_pixels(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> tuple[np.ndarray, int, str | None]:
    """`pixels` (H, W, 3) as the matrix shows them, the clockwise rotation in degrees, and a note.

    (a, b, c, d) = (0, 1, -1, 0) shows the point (p, q) at (-q, p): what was the top row becomes the right
    column, which is 90 degrees clockwise. A mirrored matrix is told as mirroring left and right after the
    rotation. Other angles than multiples of 90 are left alone and noted.
    """
    a, b, c, d = matrix
    straight, turned = a * d != 0 and b == c == 0, b * c != 0 and a == d == 0
    if not straight and not turned:
        near = max(abs(a), abs(d)) > max(abs(b), abs(c)) and max(abs(b), abs(c)) * 50 < max(abs(a), abs(d))
        if not near:
            return pixels, 0, "a rotation by an odd angle in the file was not applied"
        straight = True
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    mirrored = (flip_x == flip_y) if turned else (flip_x != flip_y)
    quarter = 90 if flip_x != mirrored else 270
    rotation = quarter if turned else 180 * flip_y
    return np.ascontiguousarray(pixels), rotation, "mirrored as the file asks" if mirrored else None


# -------------------------------------------------------------------------------------------- lists


class ListClip:
    """Frames that the caller has: paths, URLs, bytes, PIL pictures, arrays."""

    is_list = True

    def __init__(self, frames: Sequence[PictureSource], part: VideoPart, policy: MediaPolicy) -> None:
        count, times, rate = len(frames), part.frame_times, part.frame_rate
        self.name = f"<{count} frames>"
        self._frames, self._policy = frames, policy
        if not count:
            raise InvalidMessage("a video as a list of frames needs at least one")
        if count > policy.max_frames:
            raise MediaTooLarge(f"{count} frames, above the limit of {policy.max_frames} (MediaPolicy.max_frames)")
        if times is not None and len(times) != count:
            raise InvalidMessage(f"{len(times)} frame_times for {count} frames")
        self.notes: tuple[str, ...] = ()
        if rate is None and times is None:
            rate = DEFAULT_LIST_RATE
            self.notes = (f"no frame_rate or frame_times given: {rate:g} frames per second assumed",)
        self.average_rate = rate
        if times is not None:
            self.times_N = np.array(times, np.float64)
            self.end = float(times[-1] + (times[-1] - times[0]) / max(1, count - 1))
        else:
            assert rate is not None
            self.times_N = np.arange(count) / rate
            self.end = count / rate

    def frames(self, wanted: Sequence[int]) -> Iterator[ShownFrame]:
        deadline = Deadline(self.name, self._policy)
        for number in wanted:
            deadline.check()
            picture = load_picture(self._frames[number], self._policy)
            yield ShownFrame(number, picture.pixels, picture.original_size, 0, picture.notes)


# ------------------------------------------------------------------------------------ animated WebP


def is_animated_webp(media: Media) -> bool:
    """libav decodes still WebP only."""
    with media.open() as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)


@dataclass
class AnimatedWebp:
    """An animated WebP, decoded by Pillow."""

    media: Media
    policy: MediaPolicy
    is_list: bool = False
    average_rate: float | None = None
    notes: tuple[str, ...] = ()
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> AnimatedWebp:
        self.name = self.media.name
        milliseconds = webp_durations(self.media, self.policy)
        ends = np.cumsum([max(1, value) for value in milliseconds]) / 1000
        self.times_N, self.end = np.concatenate([[0.0], ends[:-1]]), float(ends[-1])
        check_seconds(self.name, self.end, self.policy)
        self._picture: ImageFile = self._stack.enter_context(open_picture(self.media, self.policy))
        check_picture(header_of(self._picture, self.name), self.policy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def frames(self, wanted: Sequence[int]) -> Iterator[ShownFrame]:
        deadline = Deadline(self.name, self.policy)
        for number in wanted:
            deadline.check()
            try:
                self._picture.seek(number)
                shown = load_picture(self._picture.convert("RGBA"), self.policy)
            except (EOFError, OSError):
                return
            yield ShownFrame(number, shown.pixels, shown.original_size, 0, shown.notes)


def webp_durations(media: Media, policy: MediaPolicy) -> list[int]:
    """Milliseconds for which each frame is shown, read from the ANMF chunks; nothing is decoded."""
    durations: list[int] = []
    with media.open() as file:
        file.seek(12)
        for count in itertools.count():
            if count > policy.max_frames:
                raise MediaTooLarge(f"{media.name}: more than {policy.max_frames} frames (MediaPolicy.max_frames)")
            head = file.read(8)
            if len(head) < 8:
                break
            length = int.from_bytes(head[4:], "little")
            start = file.tell()
            if head[:4] == b"ANMF":
                durations.append(int.from_bytes(file.read(16)[12:15], "little"))
            file.seek(start + length + length % 2)
    if not durations:
        raise MediaDecodeError(f"{media.name}: an animated WebP without frames")
    return durations
