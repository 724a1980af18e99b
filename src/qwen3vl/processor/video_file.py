"""An open video file: the choice of its stream, and the decoding of chosen frames (PyAV)."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from qwen3vl.errors import MediaDecodeError, MediaNotFound, MediaTimeout
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.video_index import FrameIndex, Run, plan_runs, read_index

# Containers that hold their frames themselves. Playlists (HLS, concat, DASH) are left out: they make the
# demuxer open other files and addresses, past the media policy.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,gif,"
    "apng,webp_pipe,png_pipe,jpeg_pipe,mjpeg,ogg,asf,asf_o,nut,rm,mxf,gxf,dv,vc1,vc1test,yuv4mpegpipe,swf,wtv,cavsvideo"
)
_MAX_THREADS = 2
# Decoders that take skip_frame for each packet; dav1d, for one, takes it once and for all.
_SKIPPING_CODECS = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
_DISORDER = 8  # frames that may leave the decoder after the last wanted one before it is given up
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails  # cover art and previews are no videos


class Deadline:
    """Raises MediaTimeout from `check` once `policy.decode_timeout` seconds have passed."""

    def __init__(self, name: str, policy: MediaPolicy) -> None:
        self._name, self._seconds = name, policy.decode_timeout
        self._end = time.monotonic() + policy.decode_timeout

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise MediaTimeout(f"{self._name}: not decoded within {self._seconds:g} s (MediaPolicy.decode_timeout)")


class VideoFile:
    """A file opened for decoding; use it in a `with` statement.

    Of several video streams the one marked as default is taken, else the first.

    Raises:
        MediaDecodeError: not a video, or none of the containers that are opened.
        MediaNotFound: no such file.
    """

    def __init__(self, media: Media, policy: MediaPolicy, deadline: Deadline | None = None) -> None:
        self.name = media.name
        self.policy = policy
        self.deadline = deadline or Deadline(media.name, policy)
        self._media = media
        self.container, self.stream = self._open()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    @property
    def num_video_streams(self) -> int:
        return len(_video_streams(self.container))

    def read_index(self) -> FrameIndex:
        """Where all frames lie; nothing is decoded. Raises as video_index.read_index does."""
        index = read_index(self.container, self.stream, self.name, self.policy, self.deadline.check)
        self._reopen()
        return index

    def decode(self, index: FrameIndex, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames numbered `wanted` (rising), each with its number, in order; what cannot be decoded is
        left out.

        Seeks where a keyframe lies far enough ahead. Where the file's table of keyframes turns out to be
        wrong, the rest is decoded in one go from the start.
        """
        if not index.by_pts:
            yield from self._decode_by_count(wanted)
            return
        runs = plan_runs(index, wanted)
        for number, run in enumerate(runs):
            frames = self._frames_from_start(index, run) if run.key < 0 else self._frames_from_key(index, run)
            if frames is None:
                self._reopen()
                rest = Run(-1, tuple(wanted for later in runs[number:] for wanted in later.wanted))
                yield from _pick(self._frames_from_start(index, rest), index, rest)
                return
            yield from _pick(frames, index, run)

    def _open(self) -> tuple[InputContainer, VideoStream]:
        media = self._media
        source = f"file:{os.fspath(media.path)}" if media.path is not None else io.BytesIO(media.data or b"")
        try:
            container: InputContainer = av.open(
                source,
                mode="r",
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except av.error.FileNotFoundError as error:
            raise MediaNotFound(f"{self.name}: no such file") from error
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MediaDecodeError(f"{self.name}: not a video that can be read ({reason})") from error
        try:
            return container, self._choose_stream(container)
        except BaseException:
            container.close()
            raise

    def _choose_stream(self, container: InputContainer) -> VideoStream:
        streams = _video_streams(container)
        if not streams:
            kinds = ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
            raise MediaDecodeError(f"{self.name}: holds no video, only {kinds}")
        stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
        context = stream.codec_context
        if context is None or stream.time_base is None:
            raise MediaDecodeError(f"{self.name}: there is no decoder for its video")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all  # the demuxer need not read them
        context.thread_type = "AUTO"
        context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
        context.options = {"max_pixels": str(self.policy.max_pixels)}  # in the decoder: headers may lie
        return stream

    def _reopen(self) -> None:
        self.container.close()
        self.container, self.stream = self._open()

    def _frames_from_start(self, index: FrameIndex, run: Run) -> Iterator[VideoFrame]:
        return self._frames(self._packets(), frozenset(index.pts_N[list(run.wanted)].tolist()))

    def _frames_from_key(self, index: FrameIndex, run: Run) -> Iterator[VideoFrame] | None:
        """Frames from the run's keyframe (or an earlier one) on; None where that cannot be had.

        The container's word for what is a keyframe is checked by what the decoder makes of it.
        """
        key_pts, key_dts = int(index.key_pts[run.key]), int(index.key_dts[run.key])
        try:
            self.container.seek(key_pts, stream=self.stream, backward=True)
        except av.error.FFmpegError:
            return None
        packets = self._packets()
        first = next(packets, None)
        if first is None or first.dts is None or first.dts > key_dts or not first.is_keyframe:
            return None
        wanted_pts = frozenset(index.pts_N[list(run.wanted)].tolist())
        frames = self._frames(itertools.chain([first], packets), wanted_pts)
        start = next((frame for frame in frames if frame.pts is not None and frame.pts >= (first.pts or 0)), None)
        if start is None or not (start.key_frame or start.pict_type == PictureType.I):
            return None
        return itertools.chain([start], frames)

    def _packets(self) -> Iterator[Packet]:
        """The stream's packets from here on; an unreadable rest of the file ends them."""
        demuxer = self.container.demux(self.stream)
        while True:
            self.deadline.check()
            try:
                packet = next(demuxer)
            except (StopIteration, av.error.FFmpegError):
                return
            if packet.size:
                yield packet

    def _frames(self, packets: Iterator[Packet], wanted_pts: frozenset[int] | None) -> Iterator[VideoFrame]:
        """Decode. Frames outside `wanted_pts` that no other frame needs are skipped, which leaves the wanted
        ones as they are; a damaged packet loses its own frame only."""
        context = self.stream.codec_context
        skips = wanted_pts is not None and context.codec.name in _SKIPPING_CODECS
        for packet in itertools.chain(packets, [None]):  # None: give out what is still held
            if skips and wanted_pts is not None and packet is not None:
                context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError:
                continue

    def _decode_by_count(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        remaining = set(wanted)
        for number, frame in enumerate(self._frames(self._packets(), None)):
            if number in remaining:
                yield number, frame
                remaining.discard(number)
                if not remaining:
                    return


def _pick(frames: Iterator[VideoFrame], index: FrameIndex, run: Run) -> Iterator[tuple[int, VideoFrame]]:
    """Those of `frames` that the run wants, with their numbers, in order."""
    number_of = {int(index.pts_N[number]): number for number in run.wanted}
    last_pts, next_number, surplus = int(index.pts_N[run.wanted[-1]]), run.wanted[0], 0
    for frame in frames:
        number = number_of.get(frame.pts) if frame.pts is not None else None
        if number is not None and number >= next_number:
            yield number, frame
            if number == run.wanted[-1]:
                return
            next_number = number + 1
        elif frame.pts is not None and frame.pts > last_pts:
            surplus += 1
            if surplus > _DISORDER:
                return


def _video_streams(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
