"""What the model wrote, split into reasoning, text and tool calls while it is being written.

    START --------> REASONING --</think>--> TEXT <--</tool_call>--> CALL
      \\______________________________________/    --<tool_call>--->

Rules (the templates of the checkpoints, Instruct and Thinking, read backwards):
  - A Thinking edition's prompt ends with `<think>\\n`: its answer starts inside the reasoning, and is
    all reasoning until the first `</think>`. Elsewhere only a `<think>` that opens the answer does so.
  - Newlines around the reasoning, and those that follow it, belong to the template and not to the text.
  - So does one newline before a tool call, and blank space between and after calls. When other text
    follows a call, all of it is text after all.
  - Tags inside the reasoning, and `</think>` inside the text, are plain text.
  - `<tool_call>` ends at the first `</tool_call>`, at the next `<tool_call>` unless that is part of its
    JSON, or with the answer. A block that names no function stays in the text, tags included.

Pieces come out as soon as no later character can change them, and do not depend on how the text was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from qwen3vl.engine.stopping import longest_overlap
from qwen3vl.engine.tool_calls import is_json, parse_tool_call
from qwen3vl.types import Delta, FinishReason, ToolCall

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"


class State(Enum):
    START = auto()
    REASONING = auto()
    TEXT = auto()
    CALL = auto()


@dataclass(frozen=True, slots=True)
class SplitOutput:
    """The parts of a whole answer. `reasoning` is None where there was no block of it, "" where it was empty."""

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]


class OutputSplitter:
    """Splits one answer as it grows.

    Args:
        thinking: the prompt ended inside the reasoning (Thinking editions).
        tool_calls: read tool calls; False leaves their blocks in the text.
        index: of the answer among `n`, for the Deltas.
    """

    def __init__(self, *, thinking: bool = False, tool_calls: bool = True, index: int = 0) -> None:
        self._state = State.START
        self._thinking = thinking
        self._read_calls = tool_calls
        self._index = index
        self._buffer = ""  # not decided yet
        self._newlines = ""  # seen inside the reasoning, dropped if it ends here
        self._gap = ""  # blank space next to a call, dropped unless text follows
        self._after_call = False
        self._after_reasoning = False
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._deltas: list[Delta] = []

    @property
    def result(self) -> SplitOutput:
        reasoning = "".join(self._reasoning) if self._thinking else None
        return SplitOutput("".join(self._text), reasoning, tuple(self._calls))

    def push(self, text: str) -> tuple[Delta, ...]:
        """Take more of the answer; returns what is certain now, in order."""
        self._buffer += text
        return self._run(final=False)

    def close(self) -> tuple[Delta, ...]:
        """The answer has ended: decide on everything that was held back."""
        return self._run(final=True)

    def _run(self, final: bool) -> tuple[Delta, ...]:
        steps = {
            State.START: self._start,
            State.REASONING: self._reason,
            State.TEXT: self._write,
            State.CALL: self._call,
        }
        while steps[self._state](final):
            pass
        deltas, self._deltas = tuple(self._deltas), []
        return deltas

    # Each step consumes what it can of the buffer and says whether the state changed.

    def _start(self, final: bool) -> bool:
        opening = self._buffer.lstrip()
        if len(opening) < len(THINK) and THINK.startswith(opening) and not final:
            return False
        if opening.startswith(THINK):
            self._buffer = opening[len(THINK) :]
            self._thinking = True
        self._state = State.REASONING if self._thinking else State.TEXT
        return True

    def _reason(self, final: bool) -> bool:
        inside, tag, after = self._buffer.partition(END_THINK)
        if tag:
            self._emit_reasoning(inside)
            self._buffer, self._state, self._after_reasoning = after, State.TEXT, True
            return True
        self._buffer = "" if final else _undecided(self._buffer, END_THINK)
        self._emit_reasoning(inside.removesuffix(self._buffer))
        return False

    def _write(self, final: bool) -> bool:
        if self._after_reasoning:
            self._buffer = self._buffer.lstrip("\n")
            self._after_reasoning = not self._buffer
        if not self._read_calls:
            text, self._buffer = self._buffer, ""
            self._emit_text(text)
            return False
        before, tag, after = self._buffer.partition(CALL)
        if tag:
            self._buffer, self._state = after, State.CALL
            self._emit_text(before.removesuffix("\n"), gap="\n" if before.endswith("\n") else "")
            return True
        held = "" if final else _undecided(before, CALL)
        before = before.removesuffix(held)
        if before.endswith("\n") and not final:
            before, held = before.removesuffix("\n"), "\n" + held
        self._buffer = held
        self._emit_text(before)
        return False

    def _call(self, final: bool) -> bool:
        body, tag, after = self._buffer.partition(END_CALL)
        if not tag and not final:
            return False
        if CALL in body and not is_json(body):  # its own end is missing, the next block begins
            body, _, rest = body.partition(CALL)
            self._buffer, tag = rest + tag + after, ""
        else:
            self._buffer, self._state = after, State.TEXT
        call = parse_tool_call(body)
        if call is None:
            self._emit_text(CALL + body + tag)
        else:
            self._calls.append(call)
            self._deltas.append(Delta(tool_call=call, index=self._index))
            self._after_call = True
        return True

    def _emit_reasoning(self, text: str) -> None:
        """Emit without newlines at either end of the whole: those at the end wait for what follows."""
        text = self._newlines + text if self._reasoning else text.lstrip("\n")
        body = text.rstrip("\n")
        self._newlines = text[len(body) :]
        if body:
            self._reasoning.append(body)
            self._append(Delta(reasoning=body, index=self._index))

    def _emit_text(self, text: str, gap: str = "") -> None:
        """Emit text; blank space after a call, and `gap`, wait for what follows."""
        if self._after_call and not text.strip():
            self._gap += text + gap
            return
        if text:
            text, self._gap, self._after_call = self._gap + text, "", False
            self._text.append(text)
            self._append(Delta(text=text, index=self._index))
        self._gap += gap

    def _append(self, delta: Delta) -> None:
        """Add a piece, to the last one where that is of the same kind."""
        last = self._deltas[-1] if self._deltas else Delta()
        if (delta.text and last.text) or (delta.reasoning and last.reasoning):
            self._deltas[-1] = replace(last, text=last.text + delta.text, reasoning=last.reasoning + delta.reasoning)
        else:
            self._deltas.append(delta)


def _undecided(text: str, tag: str) -> str:
    """The end of `text` that may be the beginning of `tag`."""
    return text[len(text) - longest_overlap(text, tag) :]


def final_reason(stopped: FinishReason, tool_calls: Sequence[ToolCall]) -> FinishReason:
    """OpenAI's finish_reason: "tool_calls" for an answer that ended by itself and calls."""
    return "tool_calls" if tool_calls and stopped == "stop" else stopped


class ThinkingBudget:
    """Ends the reasoning of a Thinking edition after `budget` tokens. For each token, in order:

        (token,) = batch_sampler.sample(logits_1V, [sampler], [thinking.next_forced()])
        thinking.record(token.token_id)

    Args:
        budget: reasoning tokens before the closing sequence is forced; 0 closes at once.
        closing_ids: the tokens of "\\n</think>\\n\\n", forced one per step.
        end_id: the token of `</think>`, by which the model closes by itself.
    """

    def __init__(self, budget: int, closing_ids: Sequence[int], end_id: int) -> None:
        assert end_id in closing_ids, (end_id, closing_ids)
        self._left = budget
        self._closing_ids = tuple(closing_ids)
        self._num_forced = 0  # of closing_ids
        self._end_id = end_id
        self._closed = False

    def next_forced(self) -> int | None:
        """The token that must come next, or None where the model is free."""
        if self._left > 0 or self._closed or self._num_forced == len(self._closing_ids):
            return None
        return self._closing_ids[self._num_forced]

    def record(self, token_id: int) -> None:
        """Count a token that was generated, forced or not."""
        if token_id == self.next_forced():
            self._num_forced += 1
        elif token_id == self._end_id:
            self._closed = True
        else:
            self._left -= 1

    def rewind(self, num_tokens: int) -> None:
        """Take back the last tokens, which do not reach back behind the end of the reasoning."""
        if self._closed or self._num_forced == len(self._closing_ids):
            return
        forced = min(self._num_forced, num_tokens)
        self._num_forced -= forced
        self._left += num_tokens - forced
