"""Actions on screens: the recorded phone step, every action's needs, and pixels of the real screen."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.agent.actions import (
    Action,
    Answer,
    Click,
    Drag,
    Keys,
    Move,
    Pixel,
    Press,
    Scroll,
    SystemButton,
    Terminate,
    Type,
    Wait,
    computer_request,
    mobile_request,
    read_step,
)
from qwen3vl.agent.schemas import COMPUTER_TOOL, MOBILE_TOOL, mobile_system
from qwen3vl.errors import ParseError
from qwen3vl.types import Choice, Completion, ImagePart, Message, TextPart, ToolCall
from tests.unit.tasks.recorded import answer, recorded


def test_the_recorded_step() -> None:
    step = read_step(answer("mobile_7_en"), (1440, 3120), "mobile")
    assert step.action == Click(Pixel(644, 253)) and step.arguments == {"action": "click", "coordinate": [447, 81]}
    assert step.thought.startswith("To search for Musk in X") and not step.notes
    assert step.intent == "I tapped on the search bar to begin searching for Musk."


def test_prompts_are_the_recorded_ones() -> None:
    record = recorded("mobile_7_en")
    assert mobile_system() == record["system"]
    request = mobile_request(
        "Search for Musk in X and go to his homepage to open the first post.",
        "screen.png",
        ["I opened the X app from the home screen."],
    )
    _, user = request.messages
    assert isinstance(user, Message) and user.text == record["prompt"] and isinstance(user.content[1], ImagePart)
    computer = computer_request("Reload web page", b"...")
    assert computer.tools == [COMPUTER_TOOL] and computer.messages[0].text == "You are a helpful assistant."  # type: ignore[union-attr]
    assert computer.messages[1].content[1] == TextPart("Reload web page")  # type: ignore[union-attr]
    assert "1000x1000" in COMPUTER_TOOL["function"]["description"]
    assert len(COMPUTER_TOOL["function"]["parameters"]["properties"]["action"]["enum"]) == 14
    assert len(MOBILE_TOOL["function"]["parameters"]["properties"]["action"]["enum"]) == 8


def call(**arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'computer_use', 'arguments': arguments})}\n</tool_call>"


AT = Pixel(960, 270)  # of 1920 x 1080
COMPUTER = [
    (dict(action="left_click", coordinate=[500, 250]), Click(AT)),
    (dict(action="right_click", coordinate=[500, 250]), Click(AT, "right")),
    (dict(action="middle_click", coordinate=[500, 250]), Click(AT, "middle")),
    (dict(action="double_click", coordinate=["500", "250"]), Click(AT, count=2)),
    (dict(action="triple_click", coordinate="500, 250"), Click(AT, count=3)),
    (dict(action="left_click"), Click(None)),
    (dict(action="mouse_move", coordinate=[1000, 1000]), Move(Pixel(1919, 1079))),
    (dict(action="left_click_drag", coordinate=[500, 250]), Drag(None, AT)),
    (dict(action="left_click_drag", coordinate=[0, 0], coordinate2=[500, 250]), Drag(Pixel(0, 0), AT)),
    (dict(action="scroll", pixels=-300), Scroll(None, vertical=-300)),
    (dict(action="scroll", pixels=-300, coordinate=[500, 250]), Scroll(AT, vertical=-300)),
    (dict(action="hscroll", pixels="5"), Scroll(None, horizontal=5)),
    (dict(action="type", text="a\nb"), Type("a\nb")),
    (dict(action="key", keys=["ctrl", "l"]), Keys(("ctrl", "l"))),
    (dict(action="key", keys="ctrl+l"), Keys(("ctrl", "l"))),
    (dict(action="wait", time=1.5), Wait(1.5)),
    (dict(action="answer", text="42"), Answer("42")),
    (dict(action="terminate", status="failure"), Terminate(False)),
    (dict(action="long_press", coordinate=[500, 250], time=2), Press(AT, 2)),
    (dict(action="system_button", button="back"), SystemButton("Back")),
    (dict(action="swipe", coordinate=[0, 0], coordinates2=[500, 250]), Drag(Pixel(0, 0), AT)),
]


@pytest.mark.parametrize(("arguments", "action"), COMPUTER)
def test_every_action(arguments: dict[str, object], action: Action) -> None:
    assert read_step(call(**arguments), (1920, 1080)).action == action
    made = Completion((Choice("", "tool_calls", tool_calls=(ToolCall("computer_use", arguments),)),))
    assert read_step(made, (1920, 1080)).action == action


@pytest.mark.parametrize(
    ("arguments", "lacks"),
    [
        (dict(action="click"), "no coordinate"),
        (dict(action="mouse_move", coordinate=[1]), "usable coordinate"),
        (dict(action="swipe", coordinate=[1, 2]), "no coordinate2"),
        (dict(action="type"), "no 'text'"),
        (dict(action="key", keys=[]), "no keys"),
        (dict(action="wait"), "no number 'time'"),
        (dict(action="wait", time=-1), "negative"),
        (dict(action="terminate"), "no status"),
        (dict(action="system_button", button="Power"), "no button"),
        (dict(action="fly"), "unknown"),
        (dict(coordinate=[1, 2]), "no action"),
    ],
)
def test_an_action_that_lacks_something_is_refused(arguments: dict[str, object], lacks: str) -> None:
    with pytest.raises(ParseError, match=lacks) as caught:
        read_step(call(**arguments), (1920, 1080))
    assert caught.value.raw == call(**arguments)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "computer_use", "arguments": {"action": "wait", "time": 1',
        '<tool_call>{"name": "computer_use", "arguments": "{\\"action\\": \\"wait\\", \\"time\\": 1}"}</tool_call>',
        'I wait. {"action": "wait", "time": 1}',
        '<tool_call>{"name": "computer_use", "arguments": {"action": "wait", "time": 1}}}</tool_call>',
        "<tool_call>{'name': 'computer_use', 'arguments': {'action': 'wait', 'time': 1}}</tool_call>",
    ],
)
def test_slips(text: str) -> None:
    if text.endswith("1"):
        with pytest.raises(ParseError, match="time"):  # "time": 1 may have been 10: not guessed
            read_step(text, (10, 10))
    else:
        assert read_step(text, (10, 10)).action == Wait(1)


def test_what_is_left_out_is_said() -> None:
    two = read_step(call(action="wait", time=1) + call(action="wait", time=2), (10, 10))
    assert two.action == Wait(1) and "2 calls" in two.notes[0]
    outside = read_step(call(action="left_click", coordinate=[1200, -5]), (100, 100))
    assert outside.action == Click(Pixel(99, 0)) and len(outside.notes) == 2
    box = read_step(call(action="left_click", coordinate=[100, 100, 300, 300]), (100, 100))
    assert box.action == Click(Pixel(20, 20)) and "centre" in box.notes[0]


@given(st.integers(0, 999), st.integers(1, 4000))
def test_pixels_are_on_the_screen_and_where_they_should_be(value: int, width: int) -> None:
    action = read_step(call(action="click", coordinate=[value, value]), (width, width), "mobile").action
    assert isinstance(action, Click) and action.at is not None
    assert 0 <= action.at.x < width and abs(action.at.x - value * width / 999) <= 1


@given(st.text('{}[]":,<>/tool_caction 0129', max_size=120))
def test_no_answer_crashes(text: str) -> None:
    with contextlib.suppress(ParseError):
        assert read_step(text, (100, 100)).raw == text
