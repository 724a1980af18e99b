"""Where pictures and videos stand in a prompt: one placeholder of the template each becomes its tokens.

    picture, grid 1 x 4 x 6, merge 2:  S I E  ->  S I I I I I I E                          6 = 4 * 6 / 4
    video, grid 2 x 4 x 4, markers "release":       S V E  ->  <0.2 seconds> S V V V V E <1.2 seconds> S V V V V E
    the same, markers "transformers5":  S V E  ->  S <0.2 seconds> S V V V V E <1.2 seconds> S V V V V E E

(S, E: <|vision_start|>, <|vision_end|>; I, V: <|image_pad|>, <|video_pad|>.) First the text gets one pad for each
temporal patch, since a timestamp is encoded together with the text before it; then, among the ids, each pad is
repeated. Sources: processing_qwen3_vl.py of transformers 4.57 ("release") and 5.23 ("transformers5").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qwen3vl.errors import InvalidMessage
from qwen3vl.inputs import Visual, VisualSpan
from qwen3vl.processor.chat import Prompt
from qwen3vl.processor.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, Tokenizer
from qwen3vl.processor.video_sampling import timestamp_text

VideoMarkers = Literal["release", "transformers5"]

_KIND_OF_PAD = {IMAGE_PAD: "image", VIDEO_PAD: "video"}
_PADS = f"{re.escape(IMAGE_PAD)}|{re.escape(VIDEO_PAD)}"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one picture or video takes in the prompt, known before it is decoded.

    Attributes:
        timestamps: of a video, in seconds, one for each temporal patch.
        markers: of a video: see above.
    """

    kind: Literal["image", "video"]
    grid_thw: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()
    markers: VideoMarkers = "release"

    def __post_init__(self) -> None:
        times = len(self.timestamps)
        assert times == (self.grid_thw[0] if self.kind == "video" else 0), (times, self.grid_thw)

    @classmethod
    def of(cls, visual: Visual, markers: VideoMarkers = "release") -> Footprint:
        return cls(visual.kind, visual.grid_thw, visual.receipt.timestamps, markers)


def expand(
    prompt: Prompt, footprints: Sequence[Footprint], tokenizer: Tokenizer, merge_size: int
) -> tuple[np.ndarray, tuple[VisualSpan, ...]]:
    """The prompt's ids (int64) with all visual tokens, and where those are.

    Args:
        footprints: of the pictures and videos in the order of the prompt.

    Raises:
        InvalidMessage: the prompt has more or fewer placeholders than there are pictures and videos, or
            one of the other kind.
    """
    ids = replace(prompt, text=_one_pad_per_patch(prompt, footprints)).encode(tokenizer)
    runs = [(i, frame, footprint) for i, footprint in enumerate(footprints) for frame in range(footprint.grid_thw[0])]
    return _repeat_pads(ids, runs, {tokenizer.id_of(IMAGE_PAD), tokenizer.id_of(VIDEO_PAD)}, merge_size)


def _one_pad_per_patch(prompt: Prompt, footprints: Sequence[Footprint]) -> str:
    unmarked = f"(?<!{re.escape(prompt.marks.start)})" if prompt.marks else ""
    pads = unmarked + f"(?P<pad>{_PADS})"
    _check_kinds([_KIND_OF_PAD[match["pad"]] for match in re.finditer(pads, prompt.text)], footprints)
    triple = f"(?P<start>{re.escape(VISION_START)})?{pads}(?P<end>{re.escape(VISION_END)})?"
    remaining = iter(footprints)
    return re.sub(triple, lambda match: _expansion(match, next(remaining)), prompt.text)


def _check_kinds(shown: Sequence[str], footprints: Sequence[Footprint]) -> None:
    if len(shown) != len(footprints):
        raise InvalidMessage(
            f"the prompt has {len(shown)} placeholders ({IMAGE_PAD}, {VIDEO_PAD}) "
            f"for {len(footprints)} pictures and videos"
        )
    for i, (kind, footprint) in enumerate(zip(shown, footprints, strict=True)):
        if kind != footprint.kind:
            raise InvalidMessage(f"placeholder {i} of the prompt is of a {kind}, but a {footprint.kind} stands there")


def _expansion(triple: re.Match[str], footprint: Footprint) -> str:
    if footprint.kind == "image":
        return triple[0]
    video = "".join(f"{timestamp_text(t)}{VISION_START}{VIDEO_PAD}{VISION_END}" for t in footprint.timestamps)
    before, after = triple["start"] or "", triple["end"] or ""
    if footprint.markers == "release" and before and after:
        return video
    return before + video + after


def _repeat_pads(
    ids: Sequence[int], runs: Sequence[tuple[int, int, Footprint]], pads: set[int], merge_size: int
) -> tuple[np.ndarray, tuple[VisualSpan, ...]]:
    """Each pad among `ids` becomes the run of its temporal patch; `runs` are (visual, frame, footprint)."""
    counts = np.ones(len(ids), np.int64)
    places = [i for i, token in enumerate(ids) if token in pads]
    assert len(places) == len(runs), (len(places), len(runs))
    for place, (_, _, footprint) in zip(places, runs, strict=True):
        _, h, w = footprint.grid_thw
        counts[place] = h * w // merge_size**2
    starts = np.cumsum(counts) - counts
    return np.repeat(np.asarray(ids, np.int64), counts), tuple(_spans(places, runs, starts))


def _spans(
    places: Sequence[int], runs: Sequence[tuple[int, int, Footprint]], starts: np.ndarray
) -> Iterator[VisualSpan]:
    for place, (visual, frame, footprint) in zip(places, runs, strict=True):
        yield VisualSpan(int(starts[place]), footprint.grid_thw[1:], visual, frame)
