from __future__ import annotations

import base64
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl.errors import InvalidMessage
from qwen3vl.processor.messages import as_messages, as_tools, to_template_dict
from qwen3vl.types import ImagePart, MediaOptions, Message, TextPart, ToolCall, VideoPart

PICTURE = Image.new("RGB", (4, 4))


def part(**values: Any) -> Any:
    (message,) = as_messages([{"role": "user", "content": [values]}])
    return message.content[0]


def refusal(messages: Any) -> str:
    with pytest.raises(InvalidMessage) as caught:
        as_messages(messages)
    return str(caught.value)


def part_refusal(**values: Any) -> str:
    return refusal(["first", {"role": "user", "content": [{"type": "text", "text": "x"}, values]}])


def test_a_string_is_a_question() -> None:
    question = Message("user", (TextPart("Hi"),))
    assert as_messages("Hi") == as_messages(["Hi"]) == as_messages(question) == as_messages([question]) == (question,)


def test_content_forms() -> None:
    assert as_messages([{"role": "user", "content": ""}])[0].content == ()
    assert as_messages([{"role": "user", "content": []}])[0].content == ()
    mixed = [{"type": "text", "text": " a\n"}, TextPart("b"), {"text": "c"}]
    assert as_messages([{"role": "system", "content": mixed}])[0].text == " a\nbc"


@pytest.mark.parametrize(
    "values",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}},
        {"image": "a.png"},
        {"image_url": {"url": "a.png", "detail": "auto"}},
    ],
)
def test_picture_forms(values: dict[str, Any]) -> None:
    assert part(**values) == ImagePart("a.png")


def test_picture_sources() -> None:
    assert part(type="image", image=PICTURE).image is PICTURE
    assert part(type="image", image=Path("a.png")).image == Path("a.png")
    assert part(type="image", base64=base64.b64encode(b"bytes").decode()).image == b"bytes"
    assert part(type="image", base64="data:image/png;base64,AAAA").image == "data:image/png;base64,AAAA"
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert part(type="image", image=pixels).image is pixels


def test_picture_settings() -> None:
    assert part(type="image", image="a", min_pixels=1024, max_pixels=4096).media == MediaOptions(1024, 4096)
    assert part(type="image", image="a", min_pixels=None).media is None
    low = {"url": "a", "detail": "low"}
    assert part(type="image_url", image_url=low).media == MediaOptions(max_pixels=512 * 512)
    assert part(type="image_url", image_url=low, max_pixels=4096).media == MediaOptions(max_pixels=4096)


@pytest.mark.parametrize(
    "values",
    [
        {"type": "video", "video": "a.mp4"},
        {"type": "video", "url": "a.mp4"},
        {"type": "video_url", "video_url": {"url": "a.mp4"}},
        {"type": "video_url", "video_url": "a.mp4"},
        {"video": "a.mp4"},
        {"video_url": {"url": "a.mp4"}},
    ],
)
def test_video_forms(values: dict[str, Any]) -> None:
    assert part(**values) == VideoPart("a.mp4")


def test_video_settings() -> None:
    given = part(
        type="video", video="a", nframes=8, min_pixels=1, max_pixels=2, total_pixels=3, video_start=1, video_end=2.5
    )
    expected = MediaOptions(num_frames=8, min_pixels=1, max_pixels=2, total_pixels=3, video_start=1, video_end=2.5)
    assert given.media == expected
    assert part(video="a", fps="0.5", min_frames=2, max_frames=6).media == MediaOptions(
        fps=0.5, min_frames=2, max_frames=6
    )


def test_frames() -> None:
    frames = [PICTURE, "b.png"]
    assert part(type="video", video=frames, sample_fps="1") == VideoPart((PICTURE, "b.png"), frame_rate=1.0)
    assert part(type="video", video=frames, raw_fps=4, sample_fps=4.0).frame_rate == 4.0
    assert part(type="video", video=frames).frame_rate is None
    assert part(type="video", video=frames, sample_fps=2, fps=1).media == MediaOptions(fps=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"type": "image", "image": "a", "foo": 1}, "unknown key 'foo' (allowed here: type, image, url"),
        ({"type": "text", "text": "x", "image": "y"}, "unknown key 'image' (allowed here: type, text)"),
        ({"type": "image", "image": "a", "fps": 1}, "unknown key 'fps'"),
        ({"type": "image", "image": "a", "resized_height": 280}, "resized_height is not supported"),
        ({"type": "image_url", "image": "a"}, "unknown key 'image'"),
        ({"type": "audio", "audio": "a"}, "unknown type 'audio' (allowed: text, image"),
        ({"type": ["image"]}, "unknown type"),
        ({"foo": "a"}, "needs a type"),
        ({"image": "a", "video": "b"}, "needs a type"),
        ({"type": "text"}, "text is missing"),
        ({"type": "text", "text": 3}, "text must be a string, not int"),
        ({"type": "text", "text": "a\ud800"}, "half a character (a lone surrogate) at index 1"),
        ({"type": "image"}, "needs exactly one of image, url, path, base64; has none"),
        ({"type": "image", "image": "a", "url": "b"}, "has ['image', 'url']"),
        ({"type": "image", "image": 5}, "image must be a path, a URL"),
        ({"type": "image", "image": {"url": "a"}}, "not dict"),
        ({"type": "image", "image": ""}, "is empty"),
        ({"type": "image", "base64": "not base64!"}, "base64 cannot be decoded"),
        ({"type": "image", "url": b"x"}, "url must be a URL or a path, not bytes"),
        ({"type": "image_url", "image_url": {"url": "a", "x": 1}}, "image_url: unknown key 'x'"),
        ({"type": "image_url", "image_url": {"url": "a", "detail": "ultra"}}, "unknown detail 'ultra'"),
        ({"type": "image", "image": "a", "min_pixels": "many"}, "min_pixels must be a whole number"),
        ({"type": "image", "image": "a", "min_pixels": 5, "max_pixels": 4}, "min_pixels=5 is not below max_pixels=4"),
        ({"type": "video", "video": "a", "fps": 1, "nframes": 4}, "fps and num_frames exclude each other"),
        ({"type": "video", "video": "a", "num_frames": 1, "nframes": 4}, "the same setting"),
        ({"type": "video", "video": "a", "sample_fps": 2}, "only a list of frames"),
        ({"type": "video", "video": ["a"], "sample_fps": 2, "raw_fps": 4}, "sample_fps and raw_fps differ"),
        ({"type": "video", "video": ["a"], "sample_fps": "fast"}, "sample_fps must be a number, not 'fast'"),
        ({"type": "video", "video": ["a"], "sample_fps": -1}, "frame_rate=-1.0 is outside"),
        ({"type": "video", "video": ["a"], "fps": 2}, "is sample_fps"),
        ({"type": "video", "video": []}, "video is empty"),
        ({"type": "video", "video": ["a", 3]}, "frame 1 must be"),
        ({"type": "video", "video": PICTURE}, "video must be a path, a URL, bytes or a list of frames, not Image"),
    ],
)
def test_a_bad_part_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    message = part_refusal(**values)
    assert message.startswith("message 1, part 1")
    assert words in message


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages is empty"),
        (None, "not NoneType"),
        ({"role": "user", "content": "x"}, "messages must be a string, a Message or a list of messages, not dict"),
        (b"x", "not bytes"),
        ([3], "message 0: must be a Message, a dict or a string, not int"),
        ([{"content": "x"}], "unknown role None (allowed: system, user, assistant, tool)"),
        ([{"role": "developer", "content": "x"}], "message 0: unknown role 'developer'"),
        ([{"role": "user", "content": "x", "name": "Ann"}], "message 0 (user): unknown key 'name'"),
        ([{"role": "user"}], "message 0: content is missing"),
        ([{"role": "assistant", "content": None}], "content is missing"),
        ([{"role": "user", "content": 3}], "content must be a string or a list of parts, not int"),
        ([{"role": "user", "content": {"text": "x"}}], "not dict"),
        ([{"role": "user", "content": ["x"]}], "message 0, part 0: must be a part or a dict, not str"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "unknown key 'tool_calls'"),
        ([{"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}], "exclude each other"),
        ([{"role": "assistant", "content": "x", "reasoning": 3}], "reasoning must be a string, not int"),
        ([{"role": "assistant", "content": "x", "refusal": "no"}], "unknown key 'refusal'"),
        ([{"role": "assistant", "tool_calls": {"name": "f"}}], "tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "message 0, tool call 0: must be an object, not str"),
        ([{"role": "assistant", "tool_calls": [{"name": "f"}]}], "tool call 0: arguments is missing"),
        ([{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}], "function: name is missing"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "args": {}}}]}], "unknown key 'args'"),
        (
            [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}],
            "must be an object or a JSON string",
        ),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": b"x"}}]}], "cannot be written as JSON"),
        ([{"role": "assistant", "tool_calls": [{"name": "", "arguments": {}}]}], "name is empty"),
        ([{"role": "tool", "content": "x", "tool_call_id": 7}], "tool_call_id must be a string, not int"),
        ([Message("robot", ())], "unknown role 'robot'"),  # type: ignore[arg-type]
        ([Message("user", "hello")], "content must be a tuple of parts, not str"),  # type: ignore[arg-type]
        ([Message("user", ("hello",))], "part 0: must be a TextPart"),  # type: ignore[arg-type]
        ([Message("user", (), reasoning="x")], "reasoning belongs to assistant messages"),
        ([Message("user", (ImagePart("a", media=3),))], "media must be MediaOptions, not int"),  # type: ignore[arg-type]
        ([Message("user", (VideoPart("a.mp4", frame_rate=2),))], "are for lists of frames"),
        ([Message("user", (VideoPart(("a", "b"), frame_times=(0.0,)),))], "1 frame_times for 2 frames"),
    ],
)
def test_a_bad_message_is_refused_by_name(messages: Any, words: str) -> None:
    assert words in refusal(messages)


def test_tool_calls() -> None:
    flat, nested = {"name": "f", "arguments": '{"a":1}'}, {"function": {"name": "g", "arguments": {"b": [2]}}}
    calls = [flat, {"id": "c2", "type": "function", **nested}, ToolCall("h", {})]
    (message,) = as_messages([{"role": "assistant", "content": None, "tool_calls": calls, "refusal": None}])
    assert message.tool_calls == (ToolCall("f", '{"a":1}'), ToolCall("g", {"b": [2]}, "c2"), ToolCall("h", {}))
    (message,) = as_messages([{"role": "tool", "content": "x", "tool_call_id": "c2", "name": "g"}])
    assert message.tool_call_id == "c2"


def test_template_dict() -> None:
    message = Message(
        "assistant",
        (TextPart("a"), ImagePart(PICTURE), VideoPart("v.mp4")),
        reasoning="r",
        tool_calls=(ToolCall("f", types.MappingProxyType({"x": (1, 2)})), ToolCall("g", "{}")),
    )
    assert to_template_dict(message) == {
        "role": "assistant",
        "content": [{"type": "text", "text": "a"}, {"type": "image", "image": ""}, {"type": "video", "video": ""}],
        "reasoning_content": "r",
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": [1, 2]}}},
            {"type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert to_template_dict(Message("user")) == {"role": "user", "content": ""}


def test_tools() -> None:
    schema = {"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}
    assert as_tools(None) == as_tools([]) == []
    assert list(as_tools([schema])[0]["function"]["parameters"]) == ["b", "a"]
    for bad in ("f", schema, [print], [{}], [{"function": {"name": 3}}], [{"name": "f", "x": {1}}]):
        with pytest.raises(InvalidMessage, match="tool"):
            as_tools(bad)  # type: ignore[arg-type]


def test_deep_nesting_is_refused_before_it_can_overflow() -> None:
    def nest(levels: int) -> dict[str, Any]:
        return {"x": nest(levels - 1)} if levels > 1 else {"x": 1}

    assert as_tools([{"name": "f", "parameters": nest(99)}])
    endless: dict[str, Any] = {}
    endless["x"] = endless
    for deep in (nest(101), nest(900), endless):
        with pytest.raises(InvalidMessage, match="nested more than 100 levels deep"):
            as_messages([Message("assistant", tool_calls=(ToolCall("f", deep),))])
