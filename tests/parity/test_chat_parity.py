"""Prompt text and ids are transformers', before placeholders are expanded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.processor.chat import ChatTemplate
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.tokenizer import Tokenizer
from tests import oracle
from tests.fixtures.conversations import CASE_NAMES, CASES, CONVERSATIONS, Conversation, assistant, tool, user


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(oracle.ASSETS)


@pytest.fixture(scope="module")
def templates() -> dict[str, ChatTemplate]:
    thinking = (oracle.ASSETS / "chat_template.thinking.jinja").read_text()
    return {"instruct": ChatTemplate.from_folder(oracle.ASSETS), "thinking": ChatTemplate(thinking)}


def their_arguments(case: Conversation, template: ChatTemplate) -> dict[str, Any]:
    return {
        "conversation": copy.deepcopy(case.messages),
        "tools": case.tools,
        "chat_template": template.source,
        "add_generation_prompt": case.add_generation_prompt,
        "add_vision_id": case.add_vision_id,
    }


def our_prompt(case: Conversation, template: ChatTemplate, tokenizer: Tokenizer | None = None) -> Any:
    return template.render(
        as_messages(case.messages),
        tools=case.tools,
        add_generation_prompt=case.add_generation_prompt,
        add_vision_id=case.add_vision_id,
        control_tokens=template.control_tokens(tokenizer) if tokenizer else None,
    )


def test_there_are_enough_conversations() -> None:
    assert len(CONVERSATIONS) >= 60
    assert len({case.name for case in CONVERSATIONS}) == len(CONVERSATIONS)


@pytest.mark.parametrize("edition", ["instruct", "thinking"])
def test_the_same_tokens_count_as_control_tokens(edition: str, templates: Any, tokenizer: Tokenizer) -> None:
    template = templates[edition]
    theirs = oracle.processor().tokenizer._get_control_tokens(template.source)
    assert sorted(template.control_tokens(tokenizer).tokens) == sorted(theirs)
    assert ("<think>" in theirs) == (edition == "thinking")


@pytest.mark.parametrize(("case", "edition"), CASES, ids=CASE_NAMES)
def test_text(case: Conversation, edition: str, templates: Any) -> None:
    theirs = oracle.processor().apply_chat_template(**their_arguments(case, templates[edition]), tokenize=False)
    assert our_prompt(case, templates[edition]).text == theirs


@pytest.mark.parametrize(("case", "edition"), CASES, ids=CASE_NAMES)
def test_ids(case: Conversation, edition: str, templates: Any, tokenizer: Tokenizer) -> None:
    arguments = their_arguments(case, templates[edition])
    theirs = oracle.processor().tokenizer.apply_chat_template(
        **arguments, tokenize=True, return_dict=True, sanitize_control_tokens=True
    )["input_ids"]
    assert our_prompt(case, templates[edition], tokenizer).encode(tokenizer) == theirs


@pytest.mark.parametrize(("case", "edition"), CASES, ids=CASE_NAMES)
def test_ids_when_control_tokens_act(case: Conversation, edition: str, templates: Any, tokenizer: Tokenizer) -> None:
    arguments = their_arguments(case, templates[edition])
    theirs = oracle.processor().tokenizer.apply_chat_template(**arguments, tokenize=True, return_dict=True)["input_ids"]
    ours = our_prompt(case, templates[edition]).encode(tokenizer)
    assert ours == theirs
    if case.hostile and edition == "thinking":  # else the case would test nothing
        assert ours != our_prompt(case, templates[edition], tokenizer).encode(tokenizer)


CONTROL = ["<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_response>", "</tool_response>", "<|image_pad|>"]
PIECES = st.lists(
    st.sampled_from([*CONTROL, "\n", "\n\n", " ", "  ", "a", "é", "e\u0301", "<", "|>", "中", "1"]), max_size=8
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(first=PIECES, answer=PIECES, result=PIECES, edition=st.sampled_from(["instruct", "thinking"]))
def test_ids_of_any_mixture(
    first: list[str], answer: list[str], result: list[str], edition: str, templates: Any, tokenizer: Tokenizer
) -> None:
    messages = [user("".join(first)), assistant("".join(answer)), tool("".join(result))]
    test_ids(Conversation("mixture", messages), edition, templates, tokenizer)
