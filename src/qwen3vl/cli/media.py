"""Which arguments are pictures, which are videos, and which is the question."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from qwen3vl.errors import InvalidParams, InvalidRequest, MediaNotFound
from qwen3vl.types import ImagePart, VideoPart

VIDEO_ENDINGS = frozenset({"mp4", "mov", "mkv", "webm", "avi", "m4v", "mpg", "mpeg", "wmv", "flv", "ts", "3gp"})
PICTURE_ENDINGS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif", "bmp", "tif", "tiff", "jp2", "ppm", "pgm", "pbm"}
    | {"qoi", "heic", "heif"}  # the last two cannot be read, but are no question either
)

MediaPart = ImagePart | VideoPart

# Two letters at least: "C:\..." is a path on Windows.
_URL = re.compile(r"(https?|file)://\S+|data:\S*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands on the command line; no question means a conversation."""

    media: tuple[MediaPart, ...]
    question: str | None


def read_arguments(inputs: Sequence[str], images: Sequence[str] = (), videos: Sequence[str] = ()) -> Asked:
    """Pictures and videos in the order given, then those of --image, then those of --video; the question last.

    The last argument is the question if it is neither a file nor a media URL; "-" reads it from standard
    input. What looks like a media file and is not there is an error, never a question.

    Raises:
        MediaNotFound, InvalidRequest.
    """
    last = inputs[-1] if inputs else None
    parts = [_media_argument(argument) for argument in inputs[:-1]]
    question = None
    if last is not None and _is_media(last):
        parts.append(part_of(last))
    elif last is not None:
        question = _from_stdin() if last == "-" else last
        if not question.strip():
            raise InvalidRequest("the question is empty")
    return Asked((*parts, *map(ImagePart, images), *map(VideoPart, videos)), question)


def part_of(source: str) -> MediaPart:
    """A video by its ending (or the type of a data: URL), everything else a picture."""
    if source.lower().startswith("data:"):
        return VideoPart(source) if source[5:11].lower() == "video/" else ImagePart(source)
    return VideoPart(source) if _ending(source) in VIDEO_ENDINGS else ImagePart(source)


def check_headers(parts: Sequence[MediaPart]) -> None:
    """Look at the headers of local files, so that a bad one is found before torch or a checkpoint is touched.

    Raises MediaError.
    """
    for part in parts:
        source = str(part.image if isinstance(part, ImagePart) else part.video)
        if not _URL.fullmatch(source):
            describe_header(part)


def describe_header(part: MediaPart) -> str:
    """Name and size of a picture or video, from its header. Raises MediaError."""
    from qwen3vl.processor.policy import MediaPolicy

    policy = MediaPolicy.library()
    if isinstance(part, ImagePart):
        from qwen3vl.processor.probe import check_picture, probe_picture

        header = probe_picture(part.image, policy)  # type: ignore[arg-type]
        check_picture(header, policy)
        return "{}: {} x {}".format(header.name, *header.upright_size)
    if _ending(str(part.video)) == "gif":
        return str(part.video)  # read by Pillow, as frames
    from qwen3vl.processor.video_probe import check_video, probe_video

    video = probe_video(part.video, policy)  # type: ignore[arg-type]
    check_video(video, policy)
    length = "" if video.duration is None else f", {video.duration:.2f} s"
    return f"{video.name}: {video.size[0]} x {video.size[1]}{length}"


def _media_argument(argument: str) -> MediaPart:
    if not _URL.fullmatch(argument) and not os.path.exists(argument):
        raise MediaNotFound(f"{argument}: no such file (only the last argument is the question; quote it)")
    return part_of(argument)


def _is_media(last: str) -> bool:
    if os.path.exists(last):
        return True
    known = _ending(last) in VIDEO_ENDINGS | PICTURE_ENDINGS
    if _URL.fullmatch(last):
        if not known and not last.lower().startswith("data:"):
            raise InvalidParams(f"{last}: cannot tell whether this is a picture or a video: use --image or --video")
        return True
    if known:
        raise MediaNotFound(f"{last}: no such file (a question that ends like a file name needs a '?' at its end)")
    return False


def _ending(source: str) -> str:
    """The file name's ending in lower case, without the dot; "" if there is none."""
    name = urlsplit(source).path if _URL.fullmatch(source) else source
    return os.path.splitext(name)[1].removeprefix(".").lower()


def _from_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"standard input is not {error.encoding} text ({error.reason})") from error
