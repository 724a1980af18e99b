"""The zoom loop, replayed from the recorded calls."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.coordinates import Box, Frame, RelativeBox
from qwen3vl.tasks.investigation import draw_looks, investigate
from qwen3vl.tasks.zoom import TOOL, BadCall, cut_box, grown, read_call, shown_size
from qwen3vl.types import ImagePart, Message, ToolCall
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

PUB = Image.new("RGB", (2460, 1612), "white")
RECORDED_SIZES = [(480, 608), (768, 352), (416, 672), (928, 288)]  # CAPABILITIES.md, of the four recorded calls


def calls() -> list[ToolCall]:
    return [ToolCall("image_zoom_in_tool", json.loads(answer(f"zoom_7_call{n}"))) for n in range(4)]


def test_the_recorded_calls_give_the_recorded_crops() -> None:
    model = FakeGenerator([*calls(), "In Southampton."])
    found = investigate(model, PUB, "Where was the picture taken?")
    assert found.answer == "In Southampton." and not found.notes
    assert [look.image.size for look in found.looks] == RECORDED_SIZES
    assert found.looks[0].label == "main hanging sign for Hop Inn" and found.looks[0].picture == 0
    assert found.looks[0].box.corners == (1412, 485, 1624, 754)
    messages = model.last.messages
    assert [m.role for m in messages] == ["system", "user"] + ["assistant", "tool"] * 4  # type: ignore[union-attr]
    assert model.last.tools == [TOOL] and isinstance(messages[3].content[0], ImagePart)  # type: ignore[index,union-attr]


def test_zooms_of_zooms_count_in_the_users_picture() -> None:
    first = ToolCall("image_zoom_in_tool", {"bbox_2d": [500, 500, 1000, 1000], "label": "a", "img_idx": 0})
    arguments = {"bbox_2d": [0, 0, 500, 500], "img_idx": 1}
    second = f"<tool_call>{json.dumps({'name': 'image_zoom_in_tool', 'arguments': arguments})}</tool_call>"
    found = investigate(FakeGenerator([first, "closer" + second, "done"]), Image.new("RGB", (400, 800)), "?")
    assert [look.box for look in found.looks] == [Box(200, 400, 400, 800), Box(200, 400, 300, 600)]
    assert found.thoughts == ("", "closer")


def test_calls_that_cannot_be_followed_are_answered_with_the_reason() -> None:
    wrong = [
        ToolCall("image_zoom_in_tool", {"bbox_2d": [0, 0, 9, 9], "img_idx": 3}),
        ToolCall("search", {"q": "pub"}),
        ToolCall("image_zoom_in_tool", {"bbox_2d": [1, 2]}),
        "<tool_call>nonsense</tool_call>",
    ]
    model = FakeGenerator([*wrong, "ok"])
    found = investigate(model, PUB, "?")
    assert found.answer == "ok" and not found.looks and len(found.notes) == 4
    assert "img_idx 3 is no picture" in found.notes[0] and "'search'" in found.notes[1]
    last = model.last.messages[-1]  # type: ignore[index]
    assert isinstance(last, Message) and last.text.startswith("Error:")


def box_call(*box: float, img_idx: int = 0, label: str = "x") -> ToolCall:
    return ToolCall("image_zoom_in_tool", {"bbox_2d": list(box), "label": label, "img_idx": img_idx})


def test_the_loop_is_bounded_and_unresolved_is_said() -> None:
    model = FakeGenerator(lambda request: box_call(0, 0, 500, 500 + model.num_requests))
    found = investigate(model, PUB, "?", max_steps=3)
    assert found.answer is None and len(found.looks) == 3 and model.num_requests == 4 and model.last.tools is None
    assert found.num_steps == 4 and [look.step for look in found.looks] == [0, 1, 2]
    assert "no answer after 3 steps" in found.notes[-1]
    with pytest.raises(InvalidParams):
        investigate(model, PUB, "?", max_steps=0)


def test_repeated_calls_are_cut() -> None:
    model = FakeGenerator(lambda request: calls()[0] if request.tools else "It is a pub.")
    found = investigate(model, PUB, "?", max_steps=8)
    assert found.answer == "It is a pub." and len(found.looks) == 1 and model.num_requests == 4
    assert "shown already, as image 1" in found.notes[0] and "tool was taken away" in found.notes[2]


def test_an_answer_with_many_calls_is_bounded() -> None:
    text = "".join(
        f'<tool_call>{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": [0, 0, {n}, {n}], "label": "", '
        f'"img_idx": 0}}}}</tool_call>' for n in range(100, 1000, 50)
    )  # fmt: skip
    found = investigate(FakeGenerator([text, "done"]), PUB, "?")
    assert len(found.looks) == 8 and "18 calls in one answer" in found.notes[0]


def test_claims_that_no_call_backs_are_noted() -> None:
    """The recorded answer tells of a search, and there is no search tool."""
    final = answer("zoom_7").rsplit("[ANSWER]", 1)[1].strip()
    found = investigate(FakeGenerator([*calls(), final]), PUB, "Where was the picture taken?")
    assert found.answer == final and found.messages[-1].text == final
    assert found.notes == ("the answer tells of a search ('search for') that was never done",)
    unseen = investigate(FakeGenerator("I zoomed in and saw a cat."), PUB, "?")
    assert unseen.notes == ("the answer tells of zooming in ('zoomed in') that was never done",)


def test_several_pictures_and_their_order() -> None:
    first, second = Image.new("RGB", (400, 400), "red"), Image.new("RGB", (800, 400), "blue")
    script = [box_call(0, 0, 500, 500, img_idx=1), box_call(500, 500, 1000, 1000, img_idx=2), "blue"]
    found = investigate(FakeGenerator(script), [first, second], "?")
    assert [(look.picture, look.box) for look in found.looks] == [
        (1, Box(0, 0, 400, 200)),
        (1, Box(200, 100, 400, 200)),
    ]
    assert all(look.image.getpixel((5, 5)) == (0, 0, 255) for look in found.looks)


def test_small_cuts_grow() -> None:
    assert grown(Box(100, 100, 110, 200), (640, 480)) == Box(89, 0, 121, 310)
    assert grown(Box(0, 0, 2, 2), (640, 480)) == Box(0, 0, 32, 32)
    assert grown(Box(630, 470, 640, 480), (640, 20)) == Box(608, 0, 640, 20)
    assert grown(Box(10, 10, 42, 42), (640, 480)) == Box(10, 10, 42, 42)
    line = cut_box(Frame(10000, 8000), RelativeBox(0, 500, 1000, 500.1))
    assert line.width / line.height <= 155


def test_shown_sizes() -> None:
    assert shown_size((212, 269)) == (480, 608) and shown_size((130, 40)) == (928, 288)
    assert shown_size((2000, 1000)) == (1984, 992)
    width, height = shown_size((9000, 7000))
    assert width * height <= 12845056 and width % 32 == height % 32 == 0


def test_zooms_of_zooms_are_exact() -> None:
    """Worked example: the right half of the third quarter row of a 1000 x 1000 picture."""
    outer = cut_box(Frame(1000, 1000), RelativeBox(0, 500, 1000, 750))
    inner = cut_box(Frame(1000, 1000).crop(outer), RelativeBox(500, 0, 1000, 1000))
    assert (outer, inner) == (Box(0, 500, 1000, 750), Box(500, 500, 1000, 750))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"img_idx": 0}, "missing argument: bbox_2d"),
        ({"bbox_2d": [1, 2, 3], "img_idx": 0}, "must be four numbers"),
        ({"bbox_2d": [5, 5, 5, 9], "img_idx": 0}, "is empty"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": 2}, "there are 2, numbered from 0 to 1"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": -1}, "is no picture"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": 0.5}, "is no picture"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": None}, "missing argument: img_idx"),
        ("zoom please", "not a JSON object"),
        (["a"], "not a JSON object"),
    ],
)
def test_what_is_wrong_with_a_call(arguments: object, told: str) -> None:
    with pytest.raises(BadCall, match=told):
        read_call(arguments, 2)


def test_calls_are_mended_where_their_meaning_is_plain() -> None:
    call = read_call({"bbox_2d": [900, -10, 100, 1200], "img_idx": "1"}, 2)
    assert (call.box, call.img_idx, len(call.notes)) == (RelativeBox(100, 0, 900, 1000), 1, 2)


def test_the_drawing_shows_each_look() -> None:
    found = investigate(FakeGenerator([*calls(), "In Southampton."]), PUB, "?")
    drawing = draw_looks(PUB, found)
    assert drawing.image.size == PUB.size and not drawing.notes
    assert drawing.image.getpixel((1412, 600)) != (255, 255, 255) and PUB.getpixel((1412, 600)) == (255, 255, 255)
