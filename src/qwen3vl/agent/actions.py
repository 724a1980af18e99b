"""What the model wants to do on a screen, as typed actions in the pixels of the real one.

    computer_request, mobile_request    prompt: system, tools, screenshot, task
    read_step                           the answer -> Step(thought, action, ...)

The model sees a screen of 1000 x 1000 (computer) or 999 x 999 (phone); actions carry whole pixels of
the screen that is given, 0 <= x < width. Nothing is executed here, and nothing is guessed: an action
that lacks what it needs is a ParseError that says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwen3vl.agent.schemas import COMPUTER_SIDE, COMPUTER_SYSTEM, COMPUTER_TOOL, MOBILE_SIDE, mobile_system
from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_json import read_json, shorten
from qwen3vl.tasks.parsing_numbers import number_groups
from qwen3vl.types import Completion, ImagePart, Message, PictureSource, Request, SamplingParams, TextPart

Device = Literal["computer", "mobile"]
_SIDES = {"computer": COMPUTER_SIDE, "mobile": MOBILE_SIDE}


@dataclass(frozen=True, slots=True)
class Pixel:
    """A pixel of the real screen, from its top left."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Click:
    """`at` None clicks where the cursor is."""

    at: Pixel | None
    button: Literal["left", "right", "middle"] = "left"
    count: int = 1


@dataclass(frozen=True, slots=True)
class Move:
    at: Pixel


@dataclass(frozen=True, slots=True)
class Drag:
    """With the left button or a finger; `start` None starts where the cursor is."""

    start: Pixel | None
    end: Pixel


@dataclass(frozen=True, slots=True)
class Press:
    """A long press of `seconds`."""

    at: Pixel
    seconds: float


@dataclass(frozen=True, slots=True)
class Scroll:
    """Amounts as the model gives them: up and left are positive; `at` None: where the cursor is."""

    at: Pixel | None
    vertical: float = 0.0
    horizontal: float = 0.0


@dataclass(frozen=True, slots=True)
class Type:
    text: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Pressed in this order, released in reverse."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SystemButton:
    name: Literal["Back", "Home", "Menu", "Enter"]


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    text: str


@dataclass(frozen=True, slots=True)
class Terminate:
    success: bool


Action = Click | Move | Drag | Press | Scroll | Type | Keys | SystemButton | Wait | Answer | Terminate


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an agent.

    Attributes:
        action: what to do.
        thought, intent: the model's "Thought:" and "Action:" lines, "" without them.
        arguments: the call as the model wrote it, in its own coordinates.
        raw: the whole answer; notes: what was mended or left out.
    """

    action: Action
    thought: str
    intent: str
    arguments: Mapping[str, Any]
    raw: str
    notes: tuple[str, ...]


def computer_request(task: str, screenshot: PictureSource, params: SamplingParams | None = None) -> Request:
    """The first turn on a computer: screenshot, then the task."""
    system = Message("system", (TextPart(COMPUTER_SYSTEM),))
    user = Message("user", (ImagePart(screenshot), TextPart(task)))
    return Request([system, user], params, tools=[COMPUTER_TOOL])


def mobile_request(
    task: str, screenshot: PictureSource, history: Sequence[str] = (), params: SamplingParams | None = None
) -> Request:
    """One step on a phone: the task, what was done so far (the `intent` of each step), then the screenshot."""
    done = "".join(f"Step {n}: {_one_line(what)}; " for n, what in enumerate(history, start=1))
    text = (
        f"The user query: {task}.\n"
        f"Task progress (You have done the following operation on the current device): {done}.\n"
    )
    system = Message("system", (TextPart(mobile_system()),))
    return Request([system, Message("user", (TextPart(text), ImagePart(screenshot)))], params)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace('"', "").strip()


def read_step(answer: Completion | str, screen: tuple[int, int], device: Device = "computer") -> Step:
    """The step in an answer, for a screen of (width, height) pixels. Raises ParseError."""
    text = answer if isinstance(answer, str) else answer.text
    try:
        return _read(answer, text, screen, device)
    except ParseError as error:
        raise error if error.raw == text else ParseError(str(error), raw=text) from error


def _read(answer: Completion | str, text: str, screen: tuple[int, int], device: Device) -> Step:
    notes: list[str] = []
    calls = [] if isinstance(answer, str) else [c.arguments for c in answer.tool_calls]
    arguments = _first_call(calls or _calls_in(text), text, notes)
    spoken = text.split("<tool_call>")[0]
    action = _action(arguments, _Screen(*screen, _SIDES[device], notes), text)
    return Step(action, _said(spoken, "Thought"), _said(spoken, "Action"), arguments, text, tuple(notes))


def _calls_in(text: str) -> list[Any]:
    blocks = re.findall(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", text, re.DOTALL)
    return blocks or [text]


def _first_call(calls: Sequence[Any], text: str, notes: list[str]) -> Mapping[str, Any]:
    if len(calls) > 1:
        notes.append(f"{len(calls)} calls in one step: only the first is taken")
    call = calls[0]
    if isinstance(call, str):
        read = read_json(call)
        notes.extend(read.notes)
        call = read.value[0] if isinstance(read.value, list) and read.value else read.value
    if isinstance(call, Mapping) and "action" not in call and "arguments" in call:
        inner = call["arguments"]
        call = read_json(inner).value if isinstance(inner, str) else inner
    if not isinstance(call, Mapping) or not isinstance(call.get("action"), str):
        raise ParseError(f"no action in the answer {shorten(text)}", raw=text)
    return call


def _said(text: str, name: str) -> str:
    match = re.search(rf"^\s*{name}\s*:\s*(.*?)(?=^\s*(?:Thought|Action)\s*:|\Z)", text, re.DOTALL | re.MULTILINE)
    return match[1].strip().strip('"') if match else ""


@dataclass(frozen=True, slots=True)
class _Screen:
    width: int
    height: int
    side: int
    notes: list[str]

    def pixel(self, x: float, y: float) -> Pixel:
        """Worked example: (447, 81) of 999 on a phone of 1440 x 3120 is the pixel (644, 253)."""
        return Pixel(self._along(x, self.width), self._along(y, self.height))

    def _along(self, value: float, length: int) -> int:
        if not math.isfinite(value):
            raise ParseError(f"a coordinate is {value}")
        if not 0 <= value <= self.side:
            self.notes.append(f"the coordinate {value:g} lay outside 0..{self.side}: clamped")
        return min(max(round(value * length / self.side), 0), length - 1)


def _action(call: Mapping[str, Any], screen: _Screen, raw: str) -> Action:
    name = call["action"].strip().lower()
    make = _MAKERS.get(name)
    if make is None:
        raise ParseError(f"the action {call['action']!r} is unknown", raw=raw)
    try:
        return make(call, screen)
    except _Lacks as lack:
        raise ParseError(
            f"the action {name!r} {lack}: {shorten(json.dumps(dict(call), default=str))}", raw=raw
        ) from None


class _Lacks(Exception):
    """What an action lacks."""


def _point(call: Mapping[str, Any], screen: _Screen, *names: str) -> Pixel | None:
    value = next((call[n] for n in names if call.get(n) is not None), None)
    if value is None:
        return None
    groups = number_groups(value)
    if len(groups) != 1 or len(groups[0]) not in (2, 4):
        raise _Lacks(f"has no usable {names[0]}")
    numbers = groups[0]
    if len(numbers) == 4:
        screen.notes.append(f"{names[0]} was a box: its centre is taken")
        numbers = [(numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2]
    return screen.pixel(*numbers)


def _needed_point(call: Mapping[str, Any], screen: _Screen, *names: str) -> Pixel:
    point = _point(call, screen, *(names or ("coordinate",)))
    if point is None:
        raise _Lacks(f"has no {names[0] if names else 'coordinate'}")
    return point


def _number(call: Mapping[str, Any], name: str) -> float:
    value = call.get(name)
    groups = number_groups(value if isinstance(value, (str, list)) else [value])
    if len(groups) != 1 or len(groups[0]) != 1 or not math.isfinite(groups[0][0]):
        raise _Lacks(f"has no number {name!r}")
    return groups[0][0]


def _text(call: Mapping[str, Any], name: str = "text") -> str:
    if not isinstance(call.get(name), (str, int, float)):
        raise _Lacks(f"has no {name!r}")
    return str(call[name])


def _keys(call: Mapping[str, Any]) -> Keys:
    keys = call.get("keys", call.get("key", call.get("text")))
    names = keys.replace("+", " ").split() if isinstance(keys, str) else keys
    if not isinstance(names, list) or not names or not all(isinstance(k, str) and k for k in names):
        raise _Lacks("has no keys")
    return Keys(tuple(names))


def _drag(call: Mapping[str, Any], screen: _Screen) -> Drag:
    """One coordinate is where a drag ends; two are its start and its end."""
    first = _needed_point(call, screen)
    second = _point(call, screen, "coordinate2", "coordinates2")
    return Drag(first, second) if second else Drag(None, first)


def _swipe(call: Mapping[str, Any], screen: _Screen) -> Drag:
    return Drag(_needed_point(call, screen), _needed_point(call, screen, "coordinate2", "coordinates2"))


def _seconds(call: Mapping[str, Any]) -> float:
    seconds = _number(call, "time")
    if seconds < 0:
        raise _Lacks(f"has the negative time {seconds:g}")
    return seconds


def _status(call: Mapping[str, Any]) -> Terminate:
    if call.get("status") not in ("success", "failure"):
        raise _Lacks("has no status success or failure")
    return Terminate(call["status"] == "success")


def _button(call: Mapping[str, Any]) -> SystemButton:
    name = str(call.get("button", "")).capitalize()
    if name not in ("Back", "Home", "Menu", "Enter"):
        raise _Lacks("has no button Back, Home, Menu or Enter")
    return SystemButton(name)  # type: ignore[arg-type]


_MAKERS: dict[str, Callable[[Mapping[str, Any], _Screen], Action]] = {
    "left_click": lambda call, screen: Click(_point(call, screen, "coordinate")),
    "right_click": lambda call, screen: Click(_point(call, screen, "coordinate"), "right"),
    "middle_click": lambda call, screen: Click(_point(call, screen, "coordinate"), "middle"),
    "double_click": lambda call, screen: Click(_point(call, screen, "coordinate"), count=2),
    "triple_click": lambda call, screen: Click(_point(call, screen, "coordinate"), count=3),
    "click": lambda call, screen: Click(_needed_point(call, screen)),
    "mouse_move": lambda call, screen: Move(_needed_point(call, screen)),
    "left_click_drag": _drag,
    "swipe": _swipe,
    "long_press": lambda call, screen: Press(_needed_point(call, screen), _seconds(call)),
    "scroll": lambda call, screen: Scroll(_point(call, screen, "coordinate"), vertical=_number(call, "pixels")),
    "hscroll": lambda call, screen: Scroll(_point(call, screen, "coordinate"), horizontal=_number(call, "pixels")),
    "type": lambda call, _: Type(_text(call)),
    "key": lambda call, _: _keys(call),
    "system_button": lambda call, _: _button(call),
    "wait": lambda call, _: Wait(_seconds(call)),
    "answer": lambda call, _: Answer(_text(call)),
    "terminate": lambda call, _: _status(call),
}
