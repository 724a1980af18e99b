"""Videos: moments, dense events, summaries (cookbooks/video_understanding.ipynb), and objects over time.

All times are seconds from the start of the file. Moments are checked against the video's length,
which comes from the generator's receipt or from the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.asking import Answer, ask_once, image_part, video_part
from qwen3vl.tasks.coordinates import Box, Frame, RelativeBox
from qwen3vl.tasks.parsing_entries import Entry, read_entries
from qwen3vl.tasks.parsing_time import Event, parse_time, read_events
from qwen3vl.tasks.pictures import picture_size
from qwen3vl.types import (
    Generator,
    ImagePart,
    MediaOptions,
    MediaReceipt,
    Part,
    PictureSource,
    SamplingParams,
    TextPart,
    VideoPart,
    VideoSource,
)

EVENTS_PROMPT = (
    "Localize a series of activity events in the video, output the start and end timestamp for each event, and "
    "describe each event with sentences. Provide the result in json format with 'mm:ss.ff' format for time depiction."
)
MOMENT_PROMPT = (
    "{question}\nFind every moment in the video that answers this, output the start and end timestamp for each, and "
    "describe each with a sentence. Provide the result in json format with 'mm:ss.ff' format for time depiction. "
    "Output an empty list if there is none."
)
SUMMARY_PROMPT = "Briefly describe the video."
OBJECTS_PROMPT = (
    'Given the query "{query}", for each frame, detect and localize the visual content described by the given textual '
    "query in JSON format. If the visual content does not exist in a frame, skip that frame. Output Format: "
    '[{{"time": 1.0, "bbox_2d": [x_min, y_min, x_max, y_max], "label": ""}}, ...].'
)


@dataclass(frozen=True, slots=True)
class Watching:
    """What was found in a video.

    Attributes:
        moments: with start and end in seconds, in order of time.
        duration: of the video in seconds; None where it is not known, and then nothing was checked.
        text: the answer as text, for summaries.
        raw, notes, complete, receipts: as in grounding.Grounding.
    """

    moments: tuple[Event, ...]
    duration: float | None
    text: str
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


def watch(
    model: Generator,
    video: VideoSource | VideoPart,
    question: str | None = None,
    *,
    duration: float | None = None,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Watching:
    """The moments that answer `question`; without one, all events of the video.

    `duration` in seconds is only needed where the generator gives no receipt. Raises ParseError if the
    answer has no times.
    """
    asked = prompt or (MOMENT_PROMPT.format(question=question) if question else EVENTS_PROMPT)
    answer = ask_once(model, [video_part(video), asked], params, media)
    events = read_events(answer.text)
    length = _duration(answer) or duration
    notes = [*answer.notes, *events.notes]
    moments = [m for event in events.items if (m := _checked(event, length, notes)) is not None]
    if length is None:
        notes.append("the length of the video is not known: the times were not checked against it")
    moments.sort(key=lambda m: (m.start, m.end))
    return Watching(tuple(moments), length, answer.text, events.raw, tuple(notes), events.complete, answer.receipts)


def summarize(
    model: Generator,
    video: VideoSource | VideoPart,
    *,
    prompt: str = SUMMARY_PROMPT,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Watching:
    """What happens in the video, as text; times in the text are read as moments where there are any."""
    answer = ask_once(model, [video_part(video), prompt], params, media)
    complete = not any("max_tokens" in note for note in answer.notes)
    return Watching((), _duration(answer), answer.text, answer.text, answer.notes, complete, answer.receipts)


def _duration(answer: Answer) -> float | None:
    return next((r.duration for r in answer.receipts if r.kind == "video"), None)


def _checked(event: Event, duration: float | None, notes: list[str]) -> Event | None:
    """The event with its ends in order and inside the video; None, with a note, if it lies behind the end."""
    if event.start > event.end:
        notes.append(f"{_show(event)} had its ends swapped: put in order")
        event = replace(event, start=event.end, end=event.start)
    if duration is None or event.end <= duration:
        return event
    if event.start >= duration:
        notes.append(f"{_show(event)} lies behind the end of the video ({duration:.2f} s): dropped")
        return None
    notes.append(f"{_show(event)} ends behind the video ({duration:.2f} s): cut")
    return replace(event, end=duration)


def _show(event: Event) -> str:
    return f"the event {event.start:.2f}-{event.end:.2f} s {event.text[:40]!r}"


# ------------------------------------------------------------------------------- objects over time


@dataclass(frozen=True, slots=True)
class SeenBox:
    """A thing at a moment: its box in pixels of the frame, which is number `frame` of those shown."""

    time: float
    frame: int
    label: str
    box: Box


@dataclass(frozen=True, slots=True)
class VideoGrounding:
    """Boxes over time, in the model's order; `size` is (width, height) of the frames."""

    boxes: tuple[SeenBox, ...]
    times: tuple[float, ...]
    size: tuple[int, int]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


def locate_in_video(
    model: Generator,
    frames: Sequence[PictureSource],
    times: Sequence[float],
    query: str,
    *,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> VideoGrounding:
    """Where `query` is in each frame. `times` in seconds, rising, one for each frame.

    The frames go as pictures, each behind its time as text ("<1.0 seconds>"), as in the cookbook: boxes
    per frame are then exact. `clips.sample_frames` takes frames and times from a file.
    """
    if len(frames) != len(times) or not frames:
        raise InvalidParams(f"{len(times)} times for {len(frames)} frames")
    parts: list[Part | str] = []
    for frame, time in zip(frames, times, strict=True):
        parts += [TextPart(f"<{time:.1f} seconds>"), image_part(frame)]
    answer = ask_once(model, [*parts, prompt or OBJECTS_PROMPT.format(query=query)], params, media)
    entries = read_entries(answer.text)
    size = picture_size(frames[0] if not isinstance(frames[0], ImagePart) else frames[0].image)
    notes = [*answer.notes, *entries.notes]
    boxes = [b for entry in entries.items if (b := _seen(entry, times, Frame(*size), notes)) is not None]
    return VideoGrounding(
        tuple(boxes), tuple(times), size, entries.raw, tuple(notes), entries.complete, answer.receipts
    )


def _seen(entry: Entry, times: Sequence[float], frame: Frame, notes: list[str]) -> SeenBox | None:
    said = next((entry.attributes[k] for k in ("time", "timestamp", "frame_time") if k in entry.attributes), None)
    if entry.kind != "box" or said is None:
        notes.append(f"an entry without a box and a time was dropped: {entry.label!r} {entry.numbers}")
        return None
    try:
        time = parse_time(said)
    except ParseError:
        notes.append(f"{said!r} is no time: the box of {entry.label!r} was dropped")
        return None
    # The model sees times rounded to 0.1 s and gives them back; anything farther off belongs to no frame.
    index = min(range(len(times)), key=lambda i: abs(times[i] - time))
    if abs(times[index] - time) > 0.051 + 1e-9:
        notes.append(f"no frame stands at {time:g} s: the box of {entry.label!r} was dropped")
        return None
    box, mended = frame.mend_box(RelativeBox(*entry.numbers))
    notes += mended
    return SeenBox(times[index], index, entry.label, box)
