"""Thinking with pictures: the model zooms in as often as it needs to, within bounds, and then answers.

The tool is Qwen-Agent's `image_zoom_in_tool` (zoom.py; cookbooks/think_with_images.ipynb). `img_idx` counts
all pictures of the conversation, the zoomed ones included. What the answer claims beyond the looks listed is
not backed: the recorded run of the real model tells of a search it never made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.asking import answer_of
from qwen3vl.tasks.coordinates import Box, Frame
from qwen3vl.tasks.draw import Canvas, Drawing
from qwen3vl.tasks.parsing_json import read_json, shorten
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.tasks.zoom import NAME, TOOL, BadCall, cut, cut_box, read_call
from qwen3vl.types import (
    Completion,
    Generator,
    ImagePart,
    MediaOptions,
    Message,
    Part,
    PictureSource,
    SamplingParams,
    TextPart,
    ToolCall,
)

SYSTEM = "Use tools to answer."
MAX_CALLS = 8  # of one answer; more are left out and noted
MAX_REPEATS = 2  # looks asked for again, before the tool is taken away
_CLAIMS = (  # of deeds that need a tool: what the answer says, and what would back it
    (
        re.compile(
            r"\b(?:(?:web|image|online|internet) search|search(?:ed|es)? (?:for|online|the web)|googled)\b", re.I
        ),
        "a search",
    ),
    (re.compile(r"\bzoom(?:ed|ing)? in\b", re.I), "zooming in"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """A part the model really looked at.

    Attributes:
        label: the model's name for it.
        picture: which of the user's pictures (from 0).
        box: what was cut, in whole pixels of that picture after its EXIF orientation.
        image: what the model was shown of it.
        step: the number of the answer that asked for it (from 0).
    """

    label: str
    picture: int
    box: Box
    image: Image.Image = field(compare=False)
    step: int = 0


@dataclass(frozen=True, slots=True)
class Investigation:
    """The outcome.

    Attributes:
        answer: the final answer; None if there was none within the steps ("unresolved").
        looks: in order.
        thoughts: what the model said with each call.
        notes: calls that could not be followed, and why; claims that no call backs.
        messages: the whole conversation, the answer included.
        num_steps: answers asked for.
    """

    answer: str | None
    looks: tuple[Look, ...]
    thoughts: tuple[str, ...]
    notes: tuple[str, ...]
    messages: tuple[Message, ...] = ()
    num_steps: int = 0


def investigate(
    model: Generator,
    images: PictureSource | Sequence[PictureSource],
    question: str,
    *,
    max_steps: int = 8,
    system: str = SYSTEM,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Investigation:
    """Asks, zooms in where the model wants to, asks again; after `max_steps` answers, or when it only repeats
    itself, the tool is taken away and the model has to answer with what it saw."""
    if max_steps < 1:
        raise InvalidParams(f"max_steps={max_steps} is below 1")
    sources = list(images) if isinstance(images, (list, tuple)) else [images]
    desk = _Desk([open_picture(source) for source in sources])  # type: ignore[arg-type]
    content: tuple[Part, ...] = (*(ImagePart(picture) for picture in desk.pictures), TextPart(question))
    messages = [Message("system", (TextPart(system),)), Message("user", content)]
    thoughts: list[str] = []
    for step in range(max_steps):
        completion = model.generate(messages, params, media=media, tools=[TOOL])
        calls = _calls(completion)
        if not calls:
            return _outcome(desk, messages, thoughts, completion, step + 1)
        said = completion.text.split("<tool_call>")[0].strip()
        thoughts.append(said)
        calls = desk.bounded(calls)
        messages.append(Message("assistant", (TextPart(said),) if said else (), completion.reasoning, tuple(calls)))
        messages += [desk.reply(call, step) for call in calls]
        if desk.repeats >= MAX_REPEATS:
            desk.notes.append("the model only asks for what it has seen: the tool was taken away")
            break
    else:
        desk.notes.append(f"no answer after {max_steps} steps: the tool was taken away")
    last = model.generate(messages, params, media=media)
    return _outcome(desk, messages, thoughts, last, len(thoughts) + 1)


def _outcome(
    desk: _Desk, messages: list[Message], thoughts: list[str], completion: Completion, num_steps: int
) -> Investigation:
    last = answer_of(completion)
    answer = None if _calls(completion) else last.text or None
    notes = [*desk.notes, *last.notes, *(_unbacked(answer, desk) if answer else ())]
    conversation = (*messages, completion.as_message())
    return Investigation(answer, tuple(desk.looks), tuple(thoughts), tuple(notes), conversation, num_steps)


def _unbacked(answer: str, desk: _Desk) -> list[str]:
    """Deeds that the answer tells of and that were not done. There is no search tool, so no search was made."""
    backed = {"zooming in": bool(desk.looks)}
    told = [(deed, found[0]) for pattern, deed in _CLAIMS if (found := pattern.search(answer))]
    return [
        f"the answer tells of {deed} ({words!r}) that was never done" for deed, words in told if not backed.get(deed)
    ]


def draw_looks(picture: Image.Image, found: Investigation, number: int = 0) -> Drawing:
    """The looks at the user's picture number `number`, on it, numbered in order; `picture` upright."""
    canvas = Canvas(picture)
    placed = [(f"{n} {look.label}", look.box) for n, look in enumerate(found.looks, start=1) if look.picture == number]
    for label, box in placed:
        canvas.box(box, canvas.colour(label))
    for label, box in placed:
        canvas.label(label, box, canvas.colour(label))
    return canvas.done()


def _calls(completion: Completion) -> list[ToolCall]:
    """The calls of an answer, also where a server left them in the text."""
    if completion.tool_calls:
        return list(completion.tool_calls)
    calls = []
    for block in completion.text.split("<tool_call>")[1:]:
        try:
            call = read_json(block.split("</tool_call>")[0]).value
        except ParseError:
            call = None
        named = isinstance(call, dict) and isinstance(call.get("name"), str)
        calls.append(ToolCall(call["name"], call.get("arguments") or {}) if named else ToolCall("", block))
    return calls


class _Desk:
    """The user's pictures, and every picture of the conversation as a part of one of them."""

    def __init__(self, pictures: list[Image.Image]) -> None:
        self.pictures = pictures
        self.shown = [(number, Frame(*picture.size)) for number, picture in enumerate(pictures)]
        self.looks: list[Look] = []
        self.notes: list[str] = []
        self.repeats = 0

    def bounded(self, calls: list[ToolCall]) -> list[ToolCall]:
        if len(calls) > MAX_CALLS:
            self.notes.append(f"{len(calls)} calls in one answer: only the first {MAX_CALLS} were followed")
        return calls[:MAX_CALLS]

    def reply(self, call: ToolCall, step: int) -> Message:
        """The zoomed picture, or what was wrong with the call, as the tool's answer."""
        try:
            look = self._look(call, step)
        except BadCall as error:
            self.notes.append(str(error))
            return Message("tool", (TextPart(f"Error: {error}"),), tool_call_id=call.id)
        self.repeats = 0
        self.looks.append(look)
        return Message("tool", (ImagePart(look.image),), tool_call_id=call.id)

    def _look(self, call: ToolCall, step: int) -> Look:
        if call.name != NAME:
            raise BadCall(
                f"there is no tool {call.name!r}" if call.name else f"no call: {shorten(str(call.arguments))}"
            )
        asked = read_call(_arguments(call), len(self.shown))
        number, frame = self.shown[asked.img_idx]
        box = cut_box(frame, asked.box)
        for index, before in enumerate(self.looks):
            if (before.picture, before.box) == (number, box):
                self.repeats += 1
                raise BadCall(
                    f"this part was shown already, as image {len(self.pictures) + index}: look there, or answer"
                )
        self.notes += [f"{shorten(asked.label)}: {note}" for note in asked.notes]
        self.shown.append((number, Frame(frame.width, frame.height).crop(box)))
        return Look(asked.label, number, box, cut(self.pictures[number], box), step)


def _arguments(call: ToolCall) -> object:
    """Arguments that the generator could not read as JSON are read leniently."""
    if not isinstance(call.arguments, str):
        return call.arguments
    try:
        return read_json(call.arguments).value
    except ParseError:
        return call.arguments
