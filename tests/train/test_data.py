"""Lines of training files: what they become, and what is said of the bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.errors import DataError
from qwen3vl.settings import MediaOptions
from qwen3vl.train.data import Example, media_files, read_line
from qwen3vl.types import ImagePart, Message, TextPart, ToolCall, VideoPart

ROOT = Path("/data")


def read(value: Any, **more: Any) -> tuple[Example, ...]:
    return read_line(json.dumps(value), "a.jsonl:7", ROOT, **more)


def turns(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]


def test_official_format() -> None:
    (example,) = read(
        {
            "id": 5,
            "image": ["a.jpg", "/abs/b.jpg"],
            "video": "c.mp4",
            "max_pixels": 5000,
            "conversations": turns(" Compare <image>\n<image> \n and<video>", " verbatim <video> ", "ok", "yes"),
        }
    )
    assert example == Example(
        (
            Message(
                "user",
                (
                    TextPart("Compare"),
                    ImagePart("/data/a.jpg"),
                    ImagePart("/abs/b.jpg"),
                    TextPart("and"),
                    VideoPart("/data/c.mp4"),
                ),
            ),
            Message("assistant", (TextPart(" verbatim <video> "),)),
            Message("user", (TextPart("ok"),)),
            Message("assistant", (TextPart("yes"),)),
        ),
        media=MediaOptions(max_pixels=5000),
        where="a.jsonl:7",
    )
    assert [str(path) for path in media_files(example)] == ["/data/a.jpg", "/abs/b.jpg", "/data/c.mp4"]


def test_a_system_turn() -> None:
    (example,) = read({"conversations": [{"from": "system", "value": "Be brief."}, *turns("a", "b")]})
    assert [message.role for message in example.messages] == ["system", "user", "assistant"]


def test_chat_messages() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    content = [
        {"type": "image_url", "image_url": {"url": "x/a.png"}},
        {"type": "image", "image": "https://e.org/b.png"},
        {"type": "video", "video": ["f1.png", "f2.png"], "sample_fps": 2},
        {"type": "text", "text": "go"},
    ]
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [called]},
    ]
    (example,) = read({"messages": messages, "tools": [tool]})
    first, second = example.messages
    assert first.content == (
        ImagePart("/data/x/a.png"),
        ImagePart("https://e.org/b.png"),
        VideoPart(("/data/f1.png", "/data/f2.png"), frame_rate=2.0),
        TextPart("go"),
    )
    assert second == Message("assistant", (), "hm", (ToolCall("f", '{"a": 1}', "1"),))
    assert example.tools == (tool,)
    assert [path.name for path in media_files(example)] == ["a.png", "f1.png", "f2.png"]


def test_packed_lines() -> None:
    examples = read([{"conversations": turns("a", "b")}, {"conversations": turns("c", "d")}])
    assert [example.where for example in examples] == ["a.jsonl:7, item 0", "a.jsonl:7, item 1"]


BAD = [
    ("{", "is not valid JSON"),
    ("3", "must be an object, not int"),
    ([], "is an empty list"),
    ([{"conversations": turns("a", "b")}, 4], "item 1: must be an object"),
    ({"text": "a"}, "needs either conversations or messages; its keys are text"),
    ({"conversations": turns("a", "b"), "messages": []}, "needs either"),
    ({"conversations": turns("a", "b"), "images": "a"}, "unknown key 'images'"),
    ({"conversations": turns("a", "b"), "tools": []}, "unknown key 'tools'"),
    ({"conversations": {}}, "must be a list of turns"),
    ({"conversations": []}, "must be a list of turns"),
    ({"conversations": ["a"]}, "turn 0: must be"),
    ({"conversations": [{"from": "dog", "value": "a"}]}, "turn 0: unknown speaker 'dog'"),
    ({"conversations": [{"from": "gpt", "value": 3}]}, "turn 0: value must be a string"),
    ({"conversations": turns("a")}, "no assistant turn"),
    ({"conversations": turns("<image>", "b")}, "turn 0: there are more <image> tags than image files"),
    ({"image": ["a", "b"], "conversations": turns("<image>", "b")}, "2 image files, but only 1 <image> tags"),
    ({"image": "a", "conversations": turns("hi", "b")}, "1 image files, but only 0 <image> tags"),
    ({"image": [3], "conversations": turns("<image>", "b")}, "image must be a file name"),
    ({"video": "a", "conversations": turns("<image>", "b")}, "there are more <image> tags"),
    ({"messages": []}, "messages is empty"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no assistant turn"),
    ({"messages": [{"role": "user", "content": "a", "weight": 1}]}, "message 0 .*unknown key 'weight'"),
    ({"conversations": turns("a", "b"), "max_pixels": -1}, "max_pixels=-1 is below 1"),
    ({"conversations": turns("a", "b"), "fps": 1, "num_frames": 2}, "exclude each other"),
    ({"conversations": [{"from": "human", "value": "\ud800"}, {"from": "gpt", "value": "b"}]}, "lone surrogate"),
]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_bad_lines(value: Any, reason: str) -> None:
    line = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(DataError, match=rf"^a.jsonl:7.*{reason}"):
        read_line(line, "a.jsonl:7", ROOT)


def test_keys_may_be_ignored_by_name() -> None:
    item = {"conversations": turns("a", "b"), "source": "web"}
    with pytest.raises(DataError, match="unknown key 'source'"):
        read(item)
    assert len(read(item, ignored_keys=("source",))) == 1
