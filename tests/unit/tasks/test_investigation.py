"""The zoom loop, replayed from the recorded calls."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.investigation import ZOOM_TOOL, grown, investigate, zoom_size
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
    assert found.looks[0].box.corners == pytest.approx((1412.04, 485.212, 1623.6, 754.416))
    messages = model.last.messages
    assert [m.role for m in messages] == ["system", "user"] + ["assistant", "tool"] * 4  # type: ignore[union-attr]
    assert model.last.tools == [ZOOM_TOOL] and isinstance(messages[3].content[0], ImagePart)  # type: ignore[index,union-attr]


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
    assert "img_idx=3" in found.notes[0] and "'search'" in found.notes[1]
    last = model.last.messages[-1]  # type: ignore[index]
    assert isinstance(last, Message) and last.text.startswith("Error:")


def test_the_loop_is_bounded_and_unresolved_is_said() -> None:
    model = FakeGenerator(lambda request: calls()[0])
    found = investigate(model, PUB, "?", max_steps=3)
    assert found.answer is None and len(found.looks) == 3 and model.num_requests == 4 and model.last.tools is None
    with pytest.raises(InvalidParams):
        investigate(model, PUB, "?", max_steps=0)


def test_small_cuts_grow() -> None:
    assert grown(Box(100, 100, 110, 200), (640, 480)) == Box(89, 100, 121, 200)
    assert grown(Box(0, 0, 2, 2), (640, 480)) == Box(0, 0, 32, 32)
    assert grown(Box(630, 470, 640, 480), (640, 20)) == Box(608, 0, 640, 20)
    assert zoom_size(211, 269) == (480, 608) and zoom_size(2000, 1000) == (1984, 992)
