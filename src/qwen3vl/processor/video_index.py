"""Where the frames of a video lie: one pass over its packets, which decodes nothing.

**Times.** The time of a frame is its presentation time on the file's own clock, pts * time_base with the edit
list applied: what ffprobe prints as pts_time. Zero is the start of the presentation, not the first frame: a
file whose edit list begins with 8.3 s of nothing has its first frame at 8.3 s, where a player shows it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from qwen3vl.errors import MediaDecodeError, MediaTooLarge
from qwen3vl.processor.policy import MediaPolicy

SEEK_GAIN = 12  # packets that a seek must save, since it empties the decoder's pipeline
_MISSING = -(1 << 63)
_ASSUMED_RATE = 25.0  # of bare streams that carry neither times nor a rate; libav's own assumption


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Every frame of one video, in order of presentation (N), and every packet, in decoding order (M).

    Attributes:
        times_N: seconds, rising.
        pts_N: the same in ticks of the stream; how a decoded frame is recognised, if `by_pts`.
        order_N: each frame's packet.
        keys: packets from which decoding can start.
        key_pts, key_dts: their times in ticks.
        by_pts: the container has a presentation time for every frame. Otherwise (AVI with B-frames, bare
            streams) frames are counted as they leave the decoder.
        end: when the last frame stops being shown, in seconds.
        average_rate: frames per second as the header states them, if it does.
        notes: what a person should know.
    """

    times_N: np.ndarray
    pts_N: np.ndarray
    order_N: np.ndarray
    keys: np.ndarray
    key_pts: np.ndarray
    key_dts: np.ndarray
    by_pts: bool
    end: float
    average_rate: float | None
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        return len(self.times_N)


@dataclass(frozen=True, slots=True)
class Run:
    """Frames `wanted` that are decoded in one go, starting at the keyframe numbered `key` (-1: the file's start)."""

    key: int
    wanted: tuple[int, ...]


class _Packets:
    """Columns of all packets in decoding order."""

    def __init__(self) -> None:
        self.pts, self.dts, self.duration = array("q"), array("q"), array("q")
        self.is_key, self.is_discarded = bytearray(), bytearray()

    def add(self, packet: av.Packet) -> None:
        self.pts.append(_MISSING if packet.pts is None else packet.pts)
        self.dts.append(_MISSING if packet.dts is None else packet.dts)
        self.duration.append(packet.duration or 0)
        self.is_key.append(packet.is_keyframe)
        self.is_discarded.append(packet.is_discard)

    def __len__(self) -> int:
        return len(self.pts)


def read_index(
    container: InputContainer, stream: VideoStream, name: str, policy: MediaPolicy, check_time: Callable[[], None]
) -> FrameIndex:
    """Read the file to its end. The container has to be rewound or opened again afterwards.

    Raises:
        MediaTooLarge: more frames or seconds than the policy allows; reading stops there.
        MediaTimeout: from `check_time`.
        MediaDecodeError: no frame at all.
    """
    packets, notes = _Packets(), []
    time_base = float(stream.time_base or 1)
    first_time = None
    try:
        for packet in container.demux(stream):
            if not packet.size:  # the final one, or a frame that the file left out
                continue
            packets.add(packet)
            if len(packets) % 64 == 1:
                check_time()
            if len(packets) > policy.max_frames:
                raise MediaTooLarge(f"{name}: more than {policy.max_frames} frames (MediaPolicy.max_frames)")
            if packet.dts is not None:
                seconds = packet.dts * time_base
                first_time = seconds if first_time is None else first_time
                check_seconds(name, seconds - first_time, policy)
    except av.error.FFmpegError as error:
        notes.append(f"the file breaks off after {len(packets)} frames ({error.strerror or error})")
    if not packets:
        raise MediaDecodeError(f"{name}: its video track holds no frame")
    index = _arrange(packets, stream, container.format.name, tuple(notes))
    if not index.num_frames:
        raise MediaDecodeError(f"{name}: every frame of its video track is marked as not to be shown")
    check_seconds(name, float(index.times_N[-1] - index.times_N[0]), policy)
    return index


def check_seconds(name: str, seconds: float, policy: MediaPolicy) -> None:
    if seconds > policy.max_seconds:
        raise MediaTooLarge(
            f"{name}: {seconds:.0f} s, above the limit of {policy.max_seconds:.0f} s (MediaPolicy.max_seconds)"
        )


def _arrange(packets: _Packets, stream: VideoStream, format_name: str, notes: tuple[str, ...]) -> FrameIndex:
    pts, dts = np.array(packets.pts, np.int64), np.array(packets.dts, np.int64)
    shown = np.flatnonzero(np.frombuffer(packets.is_discarded, np.uint8) == 0)
    rate = float(stream.average_rate or stream.guessed_rate or 0) or None
    time_base = float(stream.time_base or 1)
    # AVI stores decoding order only: with reordering its "pts" are not those of the frames.
    reordered_avi = format_name == "avi" and bool(stream.codec_context.has_b_frames)
    by_pts = not reordered_avi and bool((pts[shown] != _MISSING).all()) and bool(np.diff(np.sort(pts[shown])).all())
    if by_pts:
        order = shown[np.argsort(pts[shown], kind="stable")]
        ticks = pts[order]
        times = ticks * time_base
    else:
        order, times = shown, _times_without_pts(pts[shown], dts[shown], time_base, rate)
        ticks = pts[order]
    keys = np.flatnonzero(np.frombuffer(packets.is_key, np.uint8))
    last_duration = packets.duration[int(order[-1])] * time_base if len(order) else 0.0
    if len(times) and not last_duration:
        last_duration = 1.0 / rate if rate else 0.0
    return FrameIndex(
        times_N=times,
        pts_N=ticks,
        order_N=order,
        keys=keys,
        key_pts=pts[keys],
        key_dts=dts[keys],
        by_pts=by_pts,
        end=float(times[-1]) + last_duration if len(times) else 0.0,
        average_rate=rate,
        notes=notes,
    )


def _times_without_pts(pts: np.ndarray, dts: np.ndarray, time_base: float, rate: float | None) -> np.ndarray:
    """The k-th frame shown has the k-th of the times that are known; without any, k / rate."""
    for ticks in (pts, dts):
        ticks = np.sort(ticks)
        if len(ticks) and ticks[0] != _MISSING and (np.diff(ticks) > 0).all():
            return ticks * time_base
    return np.arange(len(pts)) / (rate or _ASSUMED_RATE)


def plan_runs(index: FrameIndex, wanted: Sequence[int]) -> list[Run]:
    """Group `wanted` (rising) into runs: a new one where seeking skips at least SEEK_GAIN packets.

    Keyframes at packets 0, 100, 200, no B-frames, wanted 5, 20, 130, 250:
    frames 5 and 20 from 0; 130 from 100, which saves packets 21..99; 250 from 200.
    """
    runs: list[Run] = []
    position = 0  # packets up to here have been given to the decoder
    for number in wanted:
        key = keyframe_before(index, number)
        if not runs or (key >= 0 and index.keys[key] - position >= SEEK_GAIN):
            start = -1 if key < 0 or index.keys[key] < SEEK_GAIN else key
            runs.append(Run(start, (number,)))
        else:
            runs[-1] = Run(runs[-1].key, (*runs[-1].wanted, number))
        position = max(position, int(index.order_N[number]) + 1)
    return runs


def keyframe_before(index: FrameIndex, number: int) -> int:
    """The last of `index.keys` from which frame `number` can be decoded, or -1 for the file's start.

    It comes before the frame both in the file and in presentation: frames that follow a keyframe in the
    file but are shown before it (open GOP) still need the group before.
    """
    last = int(np.searchsorted(index.keys, index.order_N[number], side="right")) - 1
    while last >= 0 and index.key_pts[last] > index.pts_N[number]:
        last -= 1
    return last
