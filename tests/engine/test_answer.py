"""AnswerBuilder: the pieces joined, with a scripted decoder."""

from __future__ import annotations

import pytest

from qwen3vl.engine.answer import AnswerBuilder
from qwen3vl.engine.output import OutputSplitter
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.types import Choice, Delta, SamplingParams, TokenLogprob, ToolCall

EOS, END_THINK = 99, 98


class Bytes:
    """Token i is the i-th piece of bytes; half a character waits."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces, self.waiting = pieces, b""

    def push(self, token_id: int) -> str:
        self.waiting += b"</think>" if token_id == END_THINK else self.pieces[token_id]
        try:
            text, self.waiting = self.waiting.decode(), b""
        except UnicodeDecodeError:
            return ""
        return text

    def flush(self) -> str:
        text, self.waiting = self.waiting.decode(errors="replace"), b""
        return text


def build(pieces: list[bytes], params: SamplingParams | None = None, thinking: bool = False) -> AnswerBuilder:
    checker = StopChecker(params or SamplingParams(), eos_ids=[EOS])
    splitter = OutputSplitter(thinking=thinking, index=2)
    return AnswerBuilder(Bytes(pieces), checker, splitter, index=2, end_think_id=END_THINK if thinking else None)


def feed(builder: AnswerBuilder, ids: list[int]) -> list[tuple[Delta, ...]]:
    return [builder.push(SampledToken(i)) for i in ids]


def test_an_end_token_releases_what_was_held() -> None:
    builder = build(["Grüße <".encode(), "日".encode()[:2]])
    deltas = feed(builder, [0, 1, EOS])
    assert [[d.text for d in step] for step in deltas] == [["Grüße "], [], ["<�"]]
    assert builder.choice() == Choice(
        text="Grüße <�", finish_reason="stop", index=2, stop_reason=EOS, token_ids=(0, 1, EOS), raw_text="Grüße <�"
    )
    assert all(d.index == 2 for step in deltas for d in step)


def test_the_length_flushes_the_decoder_too() -> None:
    builder = build([b"a", "é".encode()[:1]], SamplingParams(max_tokens=2))
    assert [d.text for step in feed(builder, [0, 1]) for d in step] == ["a", "�"]
    assert builder.choice().finish_reason == "length"


def test_a_stop_string_stays_in_the_raw_text_only() -> None:
    builder = build([b"one S", b"TOP two"], SamplingParams(stop=("STOP",)))
    feed(builder, [0, 1])
    choice = builder.choice()
    assert (choice.text, choice.raw_text, choice.stop_reason) == ("one ", "one STOP two", "STOP")


def test_reasoning_then_a_call() -> None:
    call = b'<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    builder = build([b"Hm", b".\n", b"\n\n", b"Yes.\n", call], thinking=True)
    feed(builder, [0, 1, END_THINK, 2, 3, 4])
    assert builder.finish_reason is None
    feed(builder, [EOS])
    choice = builder.choice()
    assert (choice.reasoning, choice.text, choice.tool_calls) == ("Hm.", "Yes.", (ToolCall("f", {}),))
    assert choice.finish_reason == "tool_calls" and choice.stop_reason == EOS
    assert choice.raw_text == "Hm.\n</think>\n\nYes.\n" + call.decode()
    assert builder.num_reasoning_tokens == 2


def test_reasoning_that_never_ends_counts_no_end_token() -> None:
    builder = build([b"Hm", b"."], thinking=True)
    feed(builder, [0, 1, EOS])
    assert (builder.choice().reasoning, builder.choice().text, builder.num_reasoning_tokens) == ("Hm.", "", 2)


def test_logprobs_are_kept_in_order() -> None:
    builder = build([b"a"])
    builder.push(SampledToken(0, -0.5, ((0, -0.5),)))
    builder.push(SampledToken(EOS, -0.1))
    assert builder.choice().logprobs == (TokenLogprob(0, -0.5, ((0, -0.5),)), TokenLogprob(EOS, -0.1))


def test_giving_up_keeps_what_there_is() -> None:
    builder = build([b"a <tool", b"x"], SamplingParams(stop=("xy",)))
    feed(builder, [0, 1])
    assert [d.text for d in builder.give_up("abort")] == ["<toolx"]
    assert (builder.choice().text, builder.choice().finish_reason) == ("a <toolx", "abort")
    assert builder.give_up("error") == ()
    assert builder.choice().finish_reason == "abort"


def test_no_choice_before_the_end() -> None:
    with pytest.raises(AssertionError):
        build([b"a"]).choice()
