"""Thinking with pictures: the model zooms in as often as it needs to, within bounds, and then answers.

The tool is Qwen-Agent's `image_zoom_in_tool` (cookbooks/think_with_images.ipynb). `img_idx` counts all
pictures of the conversation, the zoomed ones included. Zooms of zooms are cut from the user's own
picture, so that no sharpness is lost. What the answer claims beyond the looks listed is not backed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.asking import answer_of
from qwen3vl.tasks.coordinates import Box, Frame, RelativeBox
from qwen3vl.tasks.parsing_json import read_json
from qwen3vl.tasks.parsing_numbers import number_groups
from qwen3vl.tasks.pictures import open_picture
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
SIDE = 32  # sides of a zoomed picture are multiples of this, and no cut is smaller
MIN_AREA = 256 * SIDE * SIDE
ZOOM_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "image_zoom_in_tool",
        "description": "Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) and an "
        "optional object label",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) is "
                    "the top-left corner and (x2, y2) is the bottom-right corner",
                },
                "label": {
                    "type": "string",
                    "description": "The name or label of the object in the specified bounding box",
                },
                "img_idx": {
                    "type": "number",
                    "description": "The index of the zoomed-in image (starting from 0)",
                },
            },
            "required": ["bbox_2d", "label", "img_idx"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Look:
    """A part the model really looked at: `box` in pixels of the user's picture number `picture` (from 0),
    and what it was shown."""

    label: str
    picture: int
    box: Box
    image: Image.Image = field(compare=False)


@dataclass(frozen=True, slots=True)
class Investigation:
    """The outcome.

    Attributes:
        answer: the final answer; None if there was none within the steps ("unresolved").
        looks: in order.
        thoughts: what the model said with each call.
        notes: calls that could not be followed, and why.
    """

    answer: str | None
    looks: tuple[Look, ...]
    thoughts: tuple[str, ...]
    notes: tuple[str, ...]


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
    """Asks, zooms in where the model wants to, asks again; after `max_steps` answers the tool is taken away
    and the model has to answer with what it saw."""
    if max_steps < 1:
        raise InvalidParams(f"max_steps={max_steps} is below 1")
    sources = list(images) if isinstance(images, (list, tuple)) else [images]
    desk = _Desk([open_picture(source) for source in sources])  # type: ignore[arg-type]
    content: tuple[Part, ...] = (*(ImagePart(picture) for picture in desk.pictures), TextPart(question))
    messages = [Message("system", (TextPart(system),)), Message("user", content)]
    thoughts: list[str] = []
    for _ in range(max_steps):
        completion = model.generate(messages, params, media=media, tools=[ZOOM_TOOL])
        calls = _calls(completion)
        said = completion.text.split("<tool_call>")[0].strip()
        if not calls:
            return Investigation(answer_of(completion).text, tuple(desk.looks), tuple(thoughts), tuple(desk.notes))
        thoughts.append(said)
        messages.append(Message("assistant", (TextPart(said),) if said else (), completion.reasoning, tuple(calls)))
        messages += [desk.reply(call) for call in calls]
    desk.notes.append(f"no answer after {max_steps} steps: the tool was taken away")
    last = model.generate(messages, params, media=media)
    answer = None if _calls(last) else answer_of(last).text or None
    return Investigation(answer, tuple(desk.looks), tuple(thoughts), tuple(desk.notes))


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

    def reply(self, call: ToolCall) -> Message:
        """The zoomed picture, or what was wrong with the call, as the tool's answer."""
        try:
            look = self._look(call)
        except ParseError as error:
            self.notes.append(str(error))
            return Message("tool", (TextPart(f"Error: {error}"),), tool_call_id=call.id)
        self.looks.append(look)
        return Message("tool", (ImagePart(look.image),), tool_call_id=call.id)

    def _look(self, call: ToolCall) -> Look:
        arguments: Any = call.arguments
        if isinstance(arguments, str):
            arguments = read_json(arguments).value
        if call.name != ZOOM_TOOL["function"]["name"] or not isinstance(arguments, Mapping):
            raise ParseError(f"there is no tool {call.name!r}")
        index, groups = arguments.get("img_idx", 0), number_groups(arguments.get("bbox_2d"))
        if not isinstance(index, (int, float)) or not 0 <= index < len(self.shown) or int(index) != index:
            raise ParseError(f"img_idx={index!r}, but there are {len(self.shown)} images, counted from 0")
        if len(groups) != 1 or len(groups[0]) != 4:
            raise ParseError(f"bbox_2d={arguments.get('bbox_2d')!r} is not [x1, y1, x2, y2]")
        number, frame = self.shown[int(index)]
        box, mended = frame.mend_box(RelativeBox(*groups[0]))
        self.notes += mended
        picture = self.pictures[number]
        box = grown(box, picture.size)
        cut = picture.crop((round(box.x1), round(box.y1), round(box.x2), round(box.y2)))
        self.shown.append((number, Frame(*picture.size).crop(box)))
        return Look(
            str(arguments.get("label", "")), number, box, cut.resize(zoom_size(*cut.size), Image.Resampling.BICUBIC)
        )


def grown(box: Box, size: tuple[int, int]) -> Box:
    """The box grown around its centre to at least 32 pixels a side, moved inside a picture of `size`."""

    def side(low: float, high: float, length: int) -> tuple[float, float]:
        wanted = min(max(high - low, SIDE), length)
        start = min(max((low + high - wanted) / 2, 0), length - wanted)
        return start, start + wanted

    (x1, x2), (y1, y2) = side(box.x1, box.x2, size[0]), side(box.y1, box.y2, size[1])
    return Box(x1, y1, x2, y2)


def zoom_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) in multiples of 32 of at least 256 tokens' area.

    Recorded example: a cut of 212 x 269 is shown as 480 x 608.
    """
    across, down = (max(SIDE, round(side / SIDE) * SIDE) for side in (width, height))
    if across * down < MIN_AREA:
        scale = math.sqrt(MIN_AREA / (width * height))
        across, down = (math.ceil(side * scale / SIDE) * SIDE for side in (width, height))
    return across, down
