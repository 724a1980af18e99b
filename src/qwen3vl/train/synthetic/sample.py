"""What the generator makes: a question about pictures, its exact answer, and the truth behind it.

A task is a function (rng, side) -> SyntheticSample. It draws everything from `rng` and takes everything that
must not be shared between training and evaluation (fonts, words, layouts, themes) from its side, see sides.py.
Boxes and points are pixels (float) of the sample's own picture, origin top left, (x1, y1, x2, y2) and (x, y);
the 0..1000 grid exists only in `answer`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from PIL import Image

from qwen3vl.types import ImagePart, MediaOptions, Message, TextPart, Tool, VideoPart

Side = Literal["train", "heldout"]
PixelBox: TypeAlias = tuple[float, float, float, float]
Labelled: TypeAlias = tuple[str, PixelBox]
Moment: TypeAlias = tuple[float, float, str]


# ------------------------------------------------------------------------------------------- truth


@dataclass(frozen=True, slots=True)
class TextTruth:
    """Text to be read; lines joined by new lines in reading order."""

    text: str


@dataclass(frozen=True, slots=True)
class BoxesTruth:
    """Everything that must be found, and nothing else: (label, box) in reading order. Text spotting: label = text."""

    items: tuple[Labelled, ...]


@dataclass(frozen=True, slots=True)
class PointTruth:
    """Each of these boxes must be hit by one point: (label, box)."""

    items: tuple[Labelled, ...]


@dataclass(frozen=True, slots=True)
class NumberTruth:
    """A number; an answer within `tolerance` of it (absolute) is right."""

    value: float
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class ChoiceTruth:
    """One of `options` as it must be said: a letter, a word, yes or no, true or false."""

    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldsTruth:
    """A JSON object: name -> text, number, None, list or object."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableTruth:
    """A table as HTML: only table, tr, th, td, rowspan and colspan; text escaped."""

    html: str


@dataclass(frozen=True, slots=True)
class PageTruth:
    """The blocks of a page in reading order: (kind as in parsing_markup.Kind, text or table HTML, box)."""

    blocks: tuple[tuple[str, str, PixelBox], ...]


@dataclass(frozen=True, slots=True)
class ValuesTruth:
    """Label -> number, as read off a chart; right within `tolerance` of the number's size (0.05 = 5 %)."""

    values: Mapping[str, float]
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class ActionTruth:
    """One step on a screen: the action's name, the box it must hit if any, the text it carries if any."""

    action: str
    box: PixelBox | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class MomentsTruth:
    """Events of a clip: (start, end, label) in seconds from its first frame, in the order they begin."""

    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class FreeTruth:
    """A sentence that may be said in other words; scored loosely."""

    text: str


Truth: TypeAlias = (
    TextTruth | BoxesTruth | PointTruth | NumberTruth | ChoiceTruth | FieldsTruth | TableTruth | PageTruth
    | ValuesTruth | ActionTruth | MomentsTruth | FreeTruth
)  # fmt: skip
TRUTHS: dict[str, type] = {
    kind.__name__.removesuffix("Truth").lower(): kind
    for kind in (
        TextTruth, BoxesTruth, PointTruth, NumberTruth, ChoiceTruth, FieldsTruth, TableTruth, PageTruth, ValuesTruth,
        ActionTruth, MomentsTruth, FreeTruth,
    )
}  # fmt: skip


def truth_to_json(truth: Truth) -> dict[str, Any]:
    """{"kind": "boxes", "items": [...]}: plain JSON, the inverse of `truth_from_json`."""
    kind = type(truth).__name__.removesuffix("Truth").lower()
    assert kind in TRUTHS, truth
    return {"kind": kind, **{f.name: getattr(truth, f.name) for f in dataclasses.fields(truth)}}


def truth_from_json(written: Mapping[str, Any]) -> Truth:
    """The truth that `truth_to_json` wrote, also after json.loads turned its tuples into lists."""
    values = {name: value for name, value in written.items() if name != "kind"}
    made: Truth = TRUTHS[written["kind"]](**{n: v if n == "fields" else _tupled(v) for n, v in values.items()})
    return made


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, (list, tuple)) else value


# ------------------------------------------------------------------------------------------ sample


@dataclass(frozen=True, slots=True)
class Mark:
    """What the preview draws of the truth.

    Attributes:
        place: () nothing, (x, y) a point, (x1, y1, x2, y2) a box, in pixels of the picture or frame.
        label: written beside it.
        picture: which picture of the sample, from 0, in the order of the messages; a clip counts as one.
        time: of a clip: (start, end) in seconds in which the mark holds; None is always.
    """

    place: tuple[float, ...] = ()
    label: str = ""
    picture: int = 0
    time: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        assert len(self.place) in (0, 2, 4), self


@dataclass(frozen=True, slots=True)
class SyntheticSample:
    """One question with its answer.

    Attributes:
        task: its name in the registry.
        messages: end with the user's turn; pictures are PIL pictures in ImagePart, clips are lists of PIL frames
            with frame_rate in VideoPart.
        answer: the exact text the assistant shall write.
        truth: what an answer is scored against.
        marks: what the preview draws.
        media: how the pictures shall be resized; small crops need their own lower limit. None: the processor's.
        key: "side/task/seed/index"; filled in by registry.make_sample.
        tools: what the request offers beside its messages (computer_use).
    """

    task: str
    messages: tuple[Message, ...]
    answer: str
    truth: Truth
    marks: tuple[Mark, ...] = ()
    media: MediaOptions | None = field(default=None)
    key: str = ""
    tools: tuple[Tool, ...] = ()

    def __post_init__(self) -> None:
        assert self.messages and self.messages[-1].role == "user" and self.answer, self.task

    @property
    def pictures(self) -> tuple[ImagePart | VideoPart, ...]:
        """The pictures and clips in the order of the messages: what Mark.picture counts."""
        return tuple(_media_parts(self.messages))


def _media_parts(messages: tuple[Message, ...]) -> Iterator[ImagePart | VideoPart]:
    for message in messages:
        for part in message.content:
            if isinstance(part, (ImagePart, VideoPart)):
                yield part


NATIVE = MediaOptions(min_pixels=32 * 32, max_pixels=1024 * 1024)
"""Pictures are shown at their own size, rounded to whole merged tokens, however small they are."""


def asked(picture: Image.Image, question: str) -> tuple[Message, ...]:
    """The one turn that most tasks ask: the picture, then the question."""
    return (Message("user", (ImagePart(picture), TextPart(question))),)


Task: TypeAlias = Callable[[random.Random, Side], SyntheticSample]
