"""Videos for people to look at: frames taken out, contact sheets, clips cut, boxes drawn over time.

Times are seconds from the start of the file, by its own time stamps; frames are upright.
"""

from __future__ import annotations

import bisect
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw

from qwen3vl.errors import InvalidParams, MediaDecodeError, MediaNotFound
from qwen3vl.tasks.draw import draw_seen
from qwen3vl.tasks.fonts import runs
from qwen3vl.tasks.parsing_time import Event
from qwen3vl.tasks.video import VideoGrounding

PathLike = str | os.PathLike[str]
CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this build of FFmpeg has is used
_TICK = Fraction(1, 90_000)


def frames_of(path: PathLike, start: float = 0.0, end: float = math.inf) -> Iterator[tuple[float, Image.Image]]:
    """(time, upright picture) of each frame from `start` on and before `end`. Raises a MediaError naming the file."""
    with _opened(path) as container:
        stream = _video(container, path)
        first = float((stream.start_time or 0) * stream.time_base)
        if start > 0:
            container.seek(int((start + first) / stream.time_base), stream=stream)
        try:
            for frame in container.decode(stream):
                time = (frame.time or 0.0) - first
                if time >= end:
                    return
                if time >= start:
                    yield time, _upright(frame)
        except av.FFmpegError as error:
            raise MediaDecodeError(f"{path} cannot be decoded: {error}") from error


def sample_frames(path: PathLike, fps: float = 1.0, max_frames: int = 64) -> tuple[list[Image.Image], list[float]]:
    """Frames at `fps` from the start, for locate_in_video; the first at or behind each tick.

    Raises InvalidParams where the video has more than `max_frames` of them: nothing is left out silently.
    """
    if not fps > 0:
        raise InvalidParams(f"fps={fps} must be above 0")
    pictures: list[Image.Image] = []
    times: list[float] = []
    for time, picture in frames_of(path):
        if time + 1e-6 < len(times) / fps:
            continue
        if len(times) == max_frames:
            raise InvalidParams(f"{path}: more than max_frames={max_frames} frames at {fps:g} per second")
        pictures.append(picture)
        times.append(time)
    return pictures, times


def contact_sheet(path: PathLike, moments: Sequence[Event], *, columns: int = 4, width: int = 320) -> Image.Image:
    """A picture of the middle of each moment with its times and text, `columns` side by side."""
    tiles = []
    for moment in moments:
        middle = (moment.start + moment.end) / 2
        # The last frame before the middle may be all there is near the end of the file.
        frame = next((f for _, f in frames_of(path, middle)), None) or _last_before(path, middle)
        height = max(1, round(width * frame.height / frame.width))
        caption = f"{_clock(moment.start)} - {_clock(moment.end)}  {moment.text}"
        tiles.append(_captioned(frame.resize((width, height)), caption))
    if not tiles:
        raise InvalidParams("a contact sheet needs at least one moment")
    tall = max(tile.height for tile in tiles)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width, rows * tall), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, ((number % columns) * width, (number // columns) * tall))
    return sheet


def cut_clip(path: PathLike, start: float, end: float, out: PathLike) -> None:
    """Writes the pictures of `start` to `end` to `out`, encoded anew so that the cut is exact; without sound."""
    if not 0 <= start < end:
        raise InvalidParams(f"a clip from {start} to {end} s has no length")
    _encode(out, frames_of(path, start, end), path)


def overlay_video(path: PathLike, found: VideoGrounding, out: PathLike) -> None:
    """Writes the video with the boxes of `locate_in_video`, each until the next sampled frame."""

    def drawn() -> Iterator[tuple[float, Image.Image]]:
        for time, picture in frames_of(path):
            index = max(0, bisect.bisect_right(found.times, time + 1e-6) - 1)
            boxes = [b for b in found.boxes if b.frame == index]
            yield time, draw_seen(picture, found.size, boxes).image

    _encode(out, drawn(), path)


# --------------------------------------------------------------------------------------- FFmpeg


def _opened(path: PathLike) -> Any:
    if not Path(path).is_file():
        raise MediaNotFound(f"{path}: no such file")
    try:
        return av.open(os.fspath(path))
    except av.FFmpegError as error:
        raise MediaDecodeError(f"{path} is no video that can be read: {error}") from error


def _video(container: Any, path: PathLike) -> Any:
    if not container.streams.video:
        raise MediaDecodeError(f"{path} has no pictures")
    return container.streams.video[0]


def _upright(frame: Any) -> Image.Image:
    picture: Image.Image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0) or 0)
    return picture.rotate(turn, expand=True) if turn % 360 else picture  # both count counterclockwise


def _last_before(path: PathLike, time: float) -> Image.Image:
    for start in (max(0.0, time - 5), 0.0):
        if kept := deque(frames_of(path, start), maxlen=1):
            return kept[0][1]
    raise MediaDecodeError(f"{path} has no frames")


def _encode(out: PathLike, frames: Iterator[tuple[float, Image.Image]], source: PathLike) -> None:
    first = next(frames, None)
    if first is None:
        raise InvalidParams(f"{source}: no frame lies in the part asked for")
    # 4:2:0 video has even sides: one row or column at the edge may go.
    width, height = first[1].width // 2 * 2, first[1].height // 2 * 2
    codec = next(name for name in CODECS if name in av.codecs_available)
    with av.open(os.fspath(out), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = stream.time_base = _TICK
        last = -1
        for time, picture in _chained(first, frames):
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            frame.time_base = _TICK
            frame.pts = last = max(last + 1, round((time - first[0]) / _TICK))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _chained(first: tuple[float, Image.Image], rest: Iterator[tuple[float, Image.Image]]) -> Iterator[Any]:
    yield first
    yield from rest


# --------------------------------------------------------------------------------- contact sheet


def _captioned(picture: Image.Image, caption: str) -> Image.Image:
    size, lines = 12, 3
    tile = Image.new("RGB", (picture.width, picture.height + lines * (size + 4) + 4), "white")
    tile.paste(picture, (0, 0))
    draw, y = ImageDraw.Draw(tile), picture.height + size + 2
    for line in _wrapped(caption, picture.width - 8, size)[:lines]:
        x = 4.0
        for run in runs(line, size)[0]:
            draw.text((x, y), run.text, font=run.font, fill="black", anchor="ls")
            x += float(run.font.getlength(run.text))
        y += size + 4
    return tile


def _wrapped(text: str, width: float, size: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if sum(float(r.font.getlength(r.text)) for r in runs(longer, size)[0]) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"
