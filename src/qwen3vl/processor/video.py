"""From a video, however given, to patches and a receipt (`prepare_video`).

    source --fetch--> Media --index: times of all frames--> choose frames --seek, decode--> upright RGB
           --resize, one by one--> patches, temporal patch by temporal patch --> Visual

At no time more than a few frames of the file's own size are held. With `MediaPolicy.isolate` all of it but
the fetching runs in a worker process.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from qwen3vl.errors import MediaDecodeError
from qwen3vl.inputs import Patches, Visual
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.resize import check_ratio, cut_frames, empty_patches, resize_pixels
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video_clip import Clip, ShownFrame, open_media, open_source
from qwen3vl.processor.video_sampling import (
    frame_bounds,
    frames_between,
    has_constant_rate,
    num_sampled_frames,
    patch_times,
    sane_rate,
    spread_in_time,
    spread_indices,
)
from qwen3vl.processor.video_size import grid_of, resized_frame_size
from qwen3vl.settings import MediaOptions
from qwen3vl.types import MediaReceipt, VideoPart

_FALLBACK_RATE = 24.0  # transformers' assumption for a video of unknown rate
_LATE_START = 0.5  # seconds; a first frame later than this is worth a note


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Frames to show (rising numbers), and the time of each that the model is told, in seconds."""

    indices: tuple[int, ...]
    told: tuple[float, ...]
    notes: tuple[str, ...] = ()


def prepare_video(
    part: VideoPart, settings: VisionSettings, options: MediaOptions | None = None, policy: MediaPolicy | None = None
) -> Visual:
    """The patches of a video and its receipt. `part.media` overrides `options`.

    Times are seconds on the video's own clock, whatever part of it is looked at (see video_index). Which
    frames are taken: `choose_frames`; their size: video_size. A video of one frame shows it twice.

    Raises:
        MediaError: it cannot be had, is too large, or nothing of it can be decoded.
        InvalidParams: options that contradict each other or this video.
        InvalidMessage: a list of frames that is empty or does not fit its times.
    """
    policy = policy or MediaPolicy.library()
    options = (options or MediaOptions()).merged_with(part.media)
    source = open_source(part, policy)
    if not isinstance(source, Media):
        return prepare_clip(source, settings, options)
    if policy.isolate:
        from qwen3vl.processor import isolation

        return isolation.run(prepare_media, source, settings, options, policy, policy=policy, name=source.name)
    return prepare_media(source, settings, options, policy)


def prepare_media(media: Media, settings: VisionSettings, options: MediaOptions, policy: MediaPolicy) -> Visual:
    """`prepare_video` for a file that has been fetched, in this process."""
    with open_media(media, policy) as clip:
        return prepare_clip(clip, settings, options)


def choose_frames(clip: Clip, settings: VisionSettings, options: MediaOptions) -> FrameChoice:
    """Which frames of `clip` are shown.

    At a constant rate: transformers' even row of indices. At a variable rate: evenly in time, unless
    timestamps="index" asks for transformers' way. A list of frames is used whole, up to max_frames,
    unless fps or num_frames is given.
    """
    times = clip.times_N
    rate = sane_rate(clip.average_rate, times) or _FALLBACK_RATE
    by_index = options.timestamps == "index"
    clock = np.arange(len(times)) / rate if by_index else times
    end = len(times) / rate if by_index else clip.end
    first, last = frames_between(clock, end, options.video_start, options.video_end)
    count, notes = last - first + 1, []
    constant = by_index or has_constant_rate(times)
    if clip.is_list and options.fps is None and options.num_frames is None:
        wanted = min(count, frame_bounds(options, settings)[1])
        if wanted < count:
            notes.append(f"{wanted} of {count} frames of the list, the most that max_frames allows")
    elif constant:
        wanted = num_sampled_frames(count, rate, options, settings)
    else:
        shown_until = end if last + 1 == len(times) else float(times[last + 1])
        wanted = num_sampled_frames(shown_until - float(times[first]), 1.0, options, settings, available=count)
    if constant or clip.is_list:
        indices = spread_indices(first, last, wanted)
    else:
        indices = spread_in_time(times, first, last, wanted)
    return FrameChoice(tuple(indices.tolist()), tuple(clock[indices].tolist()), tuple(notes))


def prepare_clip(clip: Clip, settings: VisionSettings, options: MediaOptions) -> Visual:
    """Decode, resize and cut up the chosen frames of `clip`; one is decoded while the one before is cut up."""
    choice = choose_frames(clip, settings, options)
    packer: _Packer | None = None
    added: Future[None] | None = None
    with ThreadPoolExecutor(1) as other:
        for frame in clip.frames(choice.indices):
            if packer is None:
                check_ratio(frame.pixels.shape[0], frame.pixels.shape[1], clip.name)
                packer = _Packer(len(choice.indices), frame, settings, options)
            if added is not None:
                added.result()
            added = other.submit(packer.add, frame)
    if added is not None:
        added.result()
    if packer is None:
        raise MediaDecodeError(f"{clip.name}: none of {len(choice.indices)} frames could be decoded")
    return packer.finish(clip, choice)


class _Packer:
    """Collects resized frames; every temporal patch goes into the one array of patches when it is full."""

    def __init__(self, num_frames: int, first: ShownFrame, settings: VisionSettings, options: MediaOptions) -> None:
        self.settings, self.first = settings, first
        height, width = first.pixels.shape[:2]
        self.size = resized_frame_size(num_frames, height, width, settings, options)
        groups = grid_of(num_frames, *self.size, settings)[0]
        self.patches_GPC = empty_patches(groups, (*self.size, 3), settings)
        self.pending: list[np.ndarray] = []
        self.numbers: list[int] = []
        self.notes: dict[str, None] = {}  # a set that keeps its order
        self.sha = hashlib.sha256(repr((self.size, settings)).encode())

    def add(self, frame: ShownFrame) -> None:
        if frame.pixels.shape != self.first.pixels.shape:
            self.notes["frames of several sizes, all resized to one"] = None
        self.notes.update(dict.fromkeys(frame.notes))
        self.numbers.append(frame.number)
        self._push(resize_pixels(frame.pixels, self.size))

    def _push(self, pixels: np.ndarray) -> None:
        self.sha.update(np.ascontiguousarray(pixels).data)
        self.pending.append(pixels)
        if len(self.pending) == self.settings.temporal_patch_size:
            done = len(self.numbers) // self.settings.temporal_patch_size - 1
            cut_frames(self.pending, self.settings, self.patches_GPC[done])
            self.pending.clear()

    def finish(self, clip: Clip, choice: FrameChoice) -> Visual:
        """Fill up the last temporal patch with the last frame and write the receipt."""
        num_decoded = len(self.numbers)
        while self.pending:
            self.numbers.append(self.numbers[-1])
            self._push(self.pending[-1])
        grid = grid_of(len(self.numbers), *self.size, self.settings)
        told = dict(zip(choice.indices, choice.told, strict=True))
        times = patch_times([told[n] for n in self.numbers], self.settings.temporal_patch_size)
        height, width = self.size
        receipt = MediaReceipt(
            kind="video",
            source=clip.name,
            digest=self.sha.hexdigest(),
            original_size=self.first.stored_size,
            orientation=self.first.rotation,
            resized_size=(width, height),
            grid_thw=grid,
            num_tokens=grid[0] * grid[1] * grid[2] // self.settings.merge_size**2,
            frame_indices=tuple(self.numbers),
            frame_times=tuple(clip.times_N[self.numbers].tolist()),
            timestamps=tuple(times),
            duration=clip.end,
            notes=(*clip.notes, *choice.notes, *self._notes(clip, choice, num_decoded), *self.notes),
        )
        pixels_GPC = self.patches_GPC[: grid[0]]
        pixels_PC = pixels_GPC.reshape(-1, pixels_GPC.shape[2])
        return Visual("video", Patches(pixels_PC, self.settings.mean, self.settings.std), grid, receipt)

    def _notes(self, clip: Clip, choice: FrameChoice, num_decoded: int) -> list[str]:
        notes = []
        start = float(clip.times_N[0])
        if start > _LATE_START or start < 0:
            notes.append(f"the file's clock shows {start:.3f} s at its first frame")
        if num_decoded == 1:
            notes.append("one frame only: shown as a video that stands still")
        missing = sorted(set(choice.indices) - set(self.numbers))
        if missing:
            at = ", ".join(f"{clip.times_N[n]:.1f}" for n in missing[:5]) + (", ..." if len(missing) > 5 else "")
            notes.append(f"{len(missing)} of {len(choice.indices)} frames could not be decoded (at {at} s)")
        return notes
