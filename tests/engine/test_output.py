"""Reasoning, text and tool calls: examples, round trips through the templates, and any split of the stream."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.output import OutputSplitter, SplitOutput, ThinkingBudget, final_reason
from qwen3vl.engine.tool_calls import parse_tool_call
from qwen3vl.types import Delta, ToolCall

CALL = '<tool_call>\n{"name": "look", "arguments": {"x": 1}}\n</tool_call>'
OOPS = "<tool_call>\n{oops}\n</tool_call>"
LOOK = ToolCall("look", {"x": 1})


# --------------------------------------------------------------------------------------- streaming


tags = st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", "<", "</", "<tool_", "call>"])
blanks = st.sampled_from(["\n", "\n\n", " ", "a", "é"])
bodies = ['{"name": "f"}', '{"name": "f", "arguments": {"a": "<tool_call></think>"}}', '{"name": 3}', "{"]
pieces = st.one_of(tags, blanks, st.sampled_from([CALL, *bodies]))
answers = st.lists(pieces, max_size=14).map("".join)


def split_output(raw_text: str, *, thinking: bool = False, tool_calls: bool = True) -> SplitOutput:
    """The parts of an answer that is there as a whole."""
    splitter = OutputSplitter(thinking=thinking, tool_calls=tool_calls)
    splitter.push(raw_text)
    splitter.close()
    return splitter.result


def cut(text: str, cuts: list[int]) -> list[str]:
    marks = sorted({min(c, len(text)) for c in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(marks)]


def gather(deltas: list[Delta]) -> tuple[str, str, tuple[ToolCall, ...]]:
    calls = tuple(d.tool_call for d in deltas if d.tool_call is not None)
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), calls


@settings(max_examples=700, deadline=None)
@given(answers, st.lists(st.integers(0, 120), max_size=30), st.booleans(), st.booleans())
def test_any_split_gives_what_the_whole_gives(raw: str, cuts: list[int], thinking: bool, read_calls: bool) -> None:
    splitter = OutputSplitter(thinking=thinking, tool_calls=read_calls)
    deltas = [delta for piece in cut(raw, cuts) for delta in splitter.push(piece)]
    deltas += splitter.close()
    whole = split_output(raw, thinking=thinking, tool_calls=read_calls)
    assert splitter.result == whole
    assert gather(deltas) == (whole.text, whole.reasoning or "", whole.tool_calls)
    assert all(d.text or d.reasoning or d.tool_call for d in deltas)


@settings(max_examples=400, deadline=None)
@given(answers, st.booleans())
def test_without_calls_nothing_but_template_newlines_is_lost(raw: str, thinking: bool) -> None:
    """Against the rule of PROCESSOR_FACTS written down for a whole text."""
    got = split_output(raw, thinking=thinking, tool_calls=False)
    body = raw.lstrip()
    opened = body.startswith("<think>")
    if not (thinking or opened):
        assert got == SplitOutput(raw, None, ())
        return
    inside, tag, after = (body.removeprefix("<think>") if opened else raw).partition("</think>")
    assert got == SplitOutput(after.lstrip("\n") if tag else "", inside.strip("\n"), ())


plain = st.sampled_from([CALL, CALL, "\n", "\n", " ", "a", "<", "</think>", "tool_call>", "<tool"])


@settings(max_examples=500, deadline=None)
@given(st.lists(plain, max_size=12).map("".join))
def test_calls_take_only_blank_space_from_the_text(raw: str) -> None:
    raw = "x" + raw
    got = split_output(raw)
    assert got.tool_calls == (LOOK,) * raw.count(CALL)
    without = raw.replace(CALL, "")
    assert got.text == without or (
        without.startswith(got.text) and CALL in raw and not without[len(got.text) :].strip()
    )
    assert split_output(raw + "z").text == without + "z"


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    splitter = OutputSplitter(thinking=True, index=3)
    feed = ["Let me", " see.\n", "\n</", "think>", "\n\nIt is", " a <", "b>\n", "<tool_", "call>", CALL[11:], "\n"]
    assert [[(d.reasoning, d.text, d.tool_call) for d in splitter.push(piece)] for piece in feed] == [
        [("Let me", "", None)],
        [(" see.", "", None)],
        [],
        [],
        [("", "It is", None)],
        [("", " a ", None)],
        [("", "<b>", None)],
        [],
        [],
        [("", "", LOOK)],
        [],
    ]
    assert splitter.close() == ()
    assert all(d.index == 3 for d in OutputSplitter(index=3).push("hi"))


# ---------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("raw", "thinking", "expected"),
    [
        ("Two cats.", False, SplitOutput("Two cats.", None, ())),
        ("  Two\n\ncats.\n", False, SplitOutput("  Two\n\ncats.\n", None, ())),
        ("Hm.\n</think>\n\nTwo.", True, SplitOutput("Two.", "Hm.", ())),
        ("\n</think>\n\nTwo.", True, SplitOutput("Two.", "", ())),
        ("Hm, cut of", True, SplitOutput("", "Hm, cut of", ())),
        ("<think>\nHm.\n</think>\n\nTwo.", True, SplitOutput("Two.", "Hm.", ())),
        ("<think>\nHm.\n</think>\n\nTwo.", False, SplitOutput("Two.", "Hm.", ())),
        ("\n<think>Hm", False, SplitOutput("", "Hm", ())),
        ("a</think>b", False, SplitOutput("a</think>b", None, ())),
        ("Write <think> so.", False, SplitOutput("Write <think> so.", None, ())),
        ("a</think>b</think>c", True, SplitOutput("b</think>c", "a", ())),
        (f"{CALL}", False, SplitOutput("", None, (LOOK,))),
        (f"I look.\n{CALL}\n{CALL}", False, SplitOutput("I look.", None, (LOOK, LOOK))),
        (f"I look.\n\n{CALL}\n", False, SplitOutput("I look.\n", None, (LOOK,))),
        (f"So {CALL}\nmore", False, SplitOutput("So \nmore", None, (LOOK,))),
        (f"Hm {CALL}\n</think>\n\n{CALL}", True, SplitOutput("", f"Hm {CALL}", (LOOK,))),
        (f"a\n{OOPS}\nb", False, SplitOutput(f"a\n{OOPS}\nb", None, ())),
        (f"a\n{CALL[:-13]}\n{CALL}", False, SplitOutput("a", None, (LOOK, LOOK))),
        (f"{OOPS[:-13]}{CALL}", False, SplitOutput(OOPS[:-13], None, (LOOK,))),
        (CALL.replace("1", '"<tool_call>"'), False, SplitOutput("", None, (ToolCall("look", {"x": "<tool_call>"}),))),
        ("a\n<tool_call>\n{oo", False, SplitOutput("a\n<tool_call>\n{oo", None, ())),
        (CALL.removesuffix("\n</tool_call>"), False, SplitOutput("", None, (LOOK,))),
        ("a\n<tool_ca", False, SplitOutput("a\n<tool_ca", None, ())),
    ],
)  # fmt: skip
def test_examples(raw: str, thinking: bool, expected: SplitOutput) -> None:
    assert split_output(raw, thinking=thinking) == expected


def test_calls_stay_in_the_text_where_none_are_wanted() -> None:
    assert split_output(f"a\n{CALL}", tool_calls=False) == SplitOutput(f"a\n{CALL}", None, ())


words = st.text("ab \n", max_size=8).filter(lambda s: s == s.strip("\n"))


@settings(max_examples=200, deadline=None)
@given(words, words, st.lists(st.dictionaries(st.text(max_size=3), st.integers()), max_size=3), st.booleans())
def test_what_the_template_renders_is_read_back(
    reasoning: str, text: str, arguments: list[dict[str, int]], thinking: bool
) -> None:
    """The rendering is the assistant turn of the checkpoints' chat templates."""
    calls = tuple(ToolCall("f", a) for a in arguments if "</tool_call>" not in str(a))
    blocks = [f'<tool_call>\n{{"name": "f", "arguments": {json.dumps(c.arguments)}}}\n</tool_call>' for c in calls]
    body = "\n".join([text, *blocks] if text else blocks)
    raw = f"{reasoning}\n</think>\n\n{body}" if thinking else body
    assert split_output(raw, thinking=thinking) == SplitOutput(text, reasoning if thinking else None, calls)


# -------------------------------------------------------------------------------------- tool calls


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"name": "f", "arguments": {"a": [1, "ä"]}}', ToolCall("f", {"a": [1, "ä"]})),
        ('\n {"arguments": {"a": 1}, "name": "f"}\n', ToolCall("f", {"a": 1})),
        ('{"name": "f"}', ToolCall("f", {})),
        ('{"name": "f", "arguments": null}', ToolCall("f", {})),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', ToolCall("f", {"a": 1})),
        ('{"name": "f", "arguments": "just text"}', ToolCall("f", "just text")),
        ('{"name": "f", "arguments": [1, 2]}', ToolCall("f", "[1, 2]")),
        ('{"name": "f", "arguments": {"a": 1,}}', ToolCall("f", '{"a": 1,}')),
        ('{"name": "f", "arguments": {"a": 1}', ToolCall("f", {"a": 1})),
        ('{"name": "f", "arguments": {"a": 1}}}', ToolCall("f", {"a": 1})),
        ('{"name": "f", "arguments": {"a": "cut of', ToolCall("f", '{"a": "cut of')),
        ('{"name": "f\\"g", "arguments": {oops}}', ToolCall('f"g', "{oops}")),
        ('{"name": "f", oops', ToolCall("f", ", oops")),
        ('{"name": "", "arguments": {}}', None),
        ('{"name": 7, "arguments": {}}', None),
        ('{"arguments": {"a": 1}}', None),
        ('["name"]', None),
        ("oops", None),
        ('print("name": "f")', None),
        ("", None),
    ],
)
def test_parse_tool_call(body: str, expected: ToolCall | None) -> None:
    assert parse_tool_call(body) == expected


@pytest.mark.parametrize("value", ["[" * 200_000, "9" * 10_000])
def test_json_beyond_what_python_reads_is_kept_as_text(value: str) -> None:
    call = parse_tool_call(f'{{"name": "f", "arguments": {{"a": {value}}}}}')
    assert call is not None and call.name == "f" and isinstance(call.arguments, str) and value in call.arguments


def test_final_reason() -> None:
    cases: list[tuple[Any, Any, str]] = [
        ("stop", (LOOK,), "tool_calls"),
        ("stop", (), "stop"),
        ("length", (LOOK,), "length"),
        ("abort", (LOOK,), "abort"),
    ]
    assert all(final_reason(stopped, calls) == expected for stopped, calls, expected in cases)


# -------------------------------------------------------------------------------- thinking budget

END = 90
CLOSING = (10, END, 20)


def drive(budget: int, wanted: list[int]) -> list[int]:
    """The tokens that come out when the model would write `wanted` wherever it is free."""
    thinking, tokens, free = ThinkingBudget(budget, CLOSING, END), [], iter(wanted)
    for _ in range(len(wanted)):
        forced = thinking.next_forced()
        tokens.append(next(free) if forced is None else forced)
        thinking.record(tokens[-1])
    return tokens


@pytest.mark.parametrize(
    ("budget", "wanted", "expected"),
    [
        (0, [1, 2, 3, 4, 5], [10, END, 20, 1, 2]),
        (2, [1, 2, 3, 4, 5, 6], [1, 2, 10, END, 20, 3]),
        (2, [1, END, 3, 4, 5, 6], [1, END, 3, 4, 5, 6]),
        (2, [END, 2, 3, 4, 5, 6], [END, 2, 3, 4, 5, 6]),
        (9, [1, 2, 3, 4], [1, 2, 3, 4]),
        (3, [10, 20, 10, 4, 5, 6, 7, 8], [10, 20, 10, 10, END, 20, 4, 5]),
    ],
)
def test_thinking_budget(budget: int, wanted: list[int], expected: list[int]) -> None:
    assert drive(budget, wanted) == expected


def test_the_closing_sequence_must_close() -> None:
    with pytest.raises(AssertionError):
        ThinkingBudget(5, (10, 20), END)
