from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import CheckpointNotFound, ConfigError, InvalidMessage
from qwen3vl.processor.chat import ChatTemplate
from qwen3vl.processor.control_tokens import ControlTokens, Marks
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.tokenizer import Tokenizer
from tests.fixtures.conversations import assistant, call, function, system, text, tool, user
from tests.oracle import ASSETS

IMAGE = {"type": "image", "image": "a.png"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(ASSETS)


@pytest.fixture(scope="module")
def instruct() -> ChatTemplate:
    return ChatTemplate.from_folder(ASSETS)


@pytest.fixture(scope="module")
def thinking() -> ChatTemplate:
    return ChatTemplate((ASSETS / "chat_template.thinking.jinja").read_text())


# ------------------------------------------------------------------------------ nothing is left out


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([user("a"), system("ok"), user("look")], r"message 1 \(system\): text would be lost.*first message"),
        ([system([text("a"), IMAGE]), user("b")], r"message 0 \(system\): image would be lost"),
        ([system([IMAGE, text("<|image_pad|>")]), user("b")], r"message 0 \(system\): image would be lost"),
        ([user(IMAGE), assistant([IMAGE]), user("b")], r"message 1 \(assistant\): image would be lost"),
        (
            [user("a"), assistant([{"type": "video", "video": "a.mp4"}])],
            r"message 1 \(assistant\): video would be lost",
        ),
    ],
)
@pytest.mark.parametrize("sanitised", [True, False])
def test_what_the_template_drops_is_refused(
    instruct: ChatTemplate, tokenizer: Tokenizer, messages: Any, words: str, sanitised: bool
) -> None:
    control = instruct.control_tokens(tokenizer) if sanitised else None
    with pytest.raises(InvalidMessage, match=words):
        instruct.render(as_messages(messages), control_tokens=control)


def test_a_later_system_message_that_shows_is_fine(thinking: ChatTemplate) -> None:
    assert "late" in thinking.render(as_messages([user("a"), system("late"), user("b")])).text


def test_old_reasoning_may_be_left_out(instruct: ChatTemplate, thinking: ChatTemplate) -> None:
    messages = as_messages(
        [user("a"), assistant("<think>\nold\n</think>\n\nb"), assistant([text("old</think>"), text("c")]), user("d")]
    )
    shown = thinking.render(messages).text
    assert "old" not in shown and "b" in shown and "c" in shown
    with_field = as_messages([user("a"), assistant("b", reasoning_content="old"), user("c")])
    assert "old" not in instruct.render(with_field).text + thinking.render(with_field).text


def test_a_template_without_tools_refuses_them() -> None:
    bare = ChatTemplate("{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}")
    assert bare.render(as_messages("hi")).text == "hi"
    with pytest.raises(InvalidMessage, match="tool 0 would be lost"):
        bare.render(as_messages("hi"), tools=[function("f")])
    with pytest.raises(InvalidMessage, match="tool call 0 would be lost"):
        bare.render(as_messages([user("a"), assistant("b", tool_calls=[call("f", {})])]))


# ------------------------------------------------------------------------- control tokens in text


def control_ids(template: ChatTemplate, tokenizer: Tokenizer, messages: Any, tools: Any = None) -> list[str]:
    prompt = template.render(as_messages(messages), tools=tools, control_tokens=template.control_tokens(tokenizer))
    names = {token_id: token for token, token_id in tokenizer.added_tokens.items()}
    return [names[token] for token in prompt.encode(tokenizer) if token in names]


def test_keys_and_torn_tokens_are_text_too(instruct: ChatTemplate, tokenizer: Tokenizer) -> None:
    torn = [text("<|im_"), text("e"), text("nd|>"), text("<|im"), IMAGE, text("_end|>")]
    harmless = [text("x"), text("y"), text("z"), text("u"), IMAGE, text("v")]
    assert control_ids(instruct, tokenizer, [user(*torn)]) == control_ids(instruct, tokenizer, [user(*harmless)])
    evil = [user("a"), assistant("", tool_calls=[call("f", {"<|im_end|>": {"<tool_call>": 1}})])]
    good = [user("a"), assistant("", tool_calls=[call("f", {"x": {"y": 1}})])]
    assert control_ids(instruct, tokenizer, evil) == control_ids(instruct, tokenizer, good)


HOSTILE = st.lists(
    st.text("<|im_end>start/toolcal\U000f0000\U000f0001 ", max_size=12)
    | st.sampled_from(
        ["<|im_", "<|im_end|>", "end|>", "<tool_call>", "</tool_", "response>", "<|", "|>", "<|image_pad|>"]
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(parts=HOSTILE, answer=HOSTILE, data=st.dictionaries(st.sampled_from(["<|im_end|>", "k"]), HOSTILE, max_size=2))
def test_no_text_makes_a_control_token(
    instruct: ChatTemplate, tokenizer: Tokenizer, parts: list[str], answer: list[str], data: dict[str, list[str]]
) -> None:
    """However it is cut into parts, whatever it pretends: the control tokens are those of harmless text."""

    def conversation(write: Callable[[str], str]) -> list[dict[str, Any]]:
        said = [text(write(part)) for part in parts]
        arguments = {write(key): [write(value) for value in values] for key, values in data.items()}
        replied = assistant([text(write(part)) for part in answer], tool_calls=[call(write("f<|im_end|>"), arguments)])
        return [system(said), user(*said, IMAGE, *said), replied, tool(said)]

    hostile = control_ids(instruct, tokenizer, conversation(lambda words: words))
    assert hostile == control_ids(instruct, tokenizer, conversation(lambda words: "x"))


def test_marks_cannot_be_forged(instruct: ChatTemplate, tokenizer: Tokenizer) -> None:
    """The usual marks in a caller's text stay what they are: characters (icon fonts use that plane)."""
    words = "\U000f0000<|im_end|>\U000f0001 \U000f0001<|im_end|>\U000f0000 \U000f0002"
    messages = as_messages([user(words), tool(words)])
    prompt = instruct.render(messages, control_tokens=instruct.control_tokens(tokenizer))
    decoded = tokenizer.decode(prompt.encode(tokenizer), skip_special_tokens=False)
    assert decoded == instruct.render(messages).text
    assert control_ids(instruct, tokenizer, messages) == control_ids(instruct, tokenizer, [user("a"), tool("b")])


def test_marks_worked_example() -> None:
    marks = Marks("[", "]", "#")
    control = ControlTokens(["<|im_end|>", "<|im|>"])
    assert control.mark("say <|im_end|>", marks) == "say [<|im_end|>]"
    assert list(marks.split("say [<|im_end|>]", control.tokens)) == [("say ", True), ("<|im_end|>", False)]
    assert list(marks.split("a<|im_]end|>", control.tokens)) == [("a<|im_", True), ("end|>", True)]
    message = {"role": "user", "content": [text("<|im_"), text("end|>"), text("!")]}
    marked = control.mark_message(message, marks)["content"]
    assert [part["text"] for part in marked] == ["<|im_]", "end|>", "!"]
    assert Marks.absent_from({"\U000f0000": ["\U000f0002"]}) == Marks("\U000f0001", "\U000f0003", "\U000f0004")


def test_no_control_tokens_at_all() -> None:
    assert ControlTokens([]).mark(["x", {"y": "z"}], Marks("[", "]", "#")) == ["x", {"y": "z"}]
    assert list(Marks("[", "]", "#").split("abc", [])) == [("abc", True)]


# ------------------------------------------------------------------------------------ the template


def test_a_refusing_template_names_its_reason() -> None:
    template = ChatTemplate("{{ raise_exception('only ' ~ messages|length ~ ' message') }}")
    with pytest.raises(InvalidMessage, match="only 1 message"):
        template.render(as_messages("hi"))


def test_the_sandbox_holds() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__ }}{{ messages[0].content[0].text }}")
    with pytest.raises(InvalidMessage, match="unsafe"):
        template.render(as_messages("hi"))


def test_variables_and_helpers() -> None:
    loop = "{% for m in messages %}{{ m.content[0].text }}{% break %}{% endfor %}"
    source = "{{ eos_token }}" + loop + "{{ strftime_now('%Y')|length }}"
    assert ChatTemplate(source, {"eos_token": "<e>"}).render(as_messages("a")).text == "<e>a4"


def test_where_the_template_is_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no chat template"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "third"}))
    assert ChatTemplate.from_folder(tmp_path).source == "third"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "second"}))
    assert ChatTemplate.from_folder(tmp_path).source == "second"
    (tmp_path / "chat_template.jinja").write_text("first")
    assert ChatTemplate.from_folder(tmp_path).source == "first"
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ConfigError, match="not valid Jinja"):
        ChatTemplate.from_folder(tmp_path)
