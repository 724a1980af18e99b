"""One answer as it grows: from sampled tokens to Deltas, and at the end to a Choice.

token --LoopGuard--> held back while it may be taken back --decoder--> text
      --StopChecker--> what may be shown --OutputSplitter--> Deltas
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from qwen3vl.engine.loop_guard import LoopGuard
from qwen3vl.engine.output import OutputSplitter, final_reason
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.types import Choice, Delta, FinishReason, TokenLogprob


class TextDecoder(Protocol):
    """processor.tokenizer.IncrementalDecoder, or a fake."""

    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


REPETITION: Literal["repetition"] = "repetition"  # the stop_reason of an answer that a LoopGuard ended
MOST_REWINDS = 3  # each has cost a whole loop by then


@dataclass(frozen=True, slots=True)
class Rewind:
    """The last `num_tokens` tokens are taken back; in the place of the first, `forbidden` must not come again."""

    num_tokens: int
    forbidden: frozenset[int]


class AnswerBuilder:
    """Joins loop guard, decoder, stop checker and splitter for one of the `n` answers of a request.

    Args:
        end_think_id: the token of `</think>` where the answer starts inside the reasoning, else None.
        loop_guard: as in SamplingParams. "rewind" holds back what repeats, so that nothing shown is taken back.

    Attributes:
        num_reasoning_tokens: tokens before `</think>`; forced ones count (see ThinkingBudget).
    """

    def __init__(
        self,
        decoder: TextDecoder,
        checker: StopChecker,
        splitter: OutputSplitter,
        *,
        index: int = 0,
        end_think_id: int | None = None,
        loop_guard: Literal["stop", "rewind", "off"] = "off",
    ) -> None:
        self.num_reasoning_tokens = 0
        self._decoder, self._checker, self._splitter = decoder, checker, splitter
        self._index = index
        self._end_think_id = end_think_id
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._raw: list[str] = []
        self._given_up: Literal["abort", "error", "repetition"] | None = None
        self._guard = LoopGuard() if loop_guard != "off" else None
        self._rewinds_left = MOST_REWINDS if loop_guard == "rewind" else 0
        self._holds = loop_guard == "rewind"
        self._held: list[SampledToken] = []
        self._forbidden: dict[int, frozenset[int]] = {}  # by place in the answer
        self._rewind: Rewind | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while the answer goes on."""
        given_up: FinishReason | None = "stop" if self._given_up == REPETITION else self._given_up
        stopped = given_up or self._checker.finish_reason
        return None if stopped is None else final_reason(stopped, self._splitter.result.tool_calls)

    def push(self, token: SampledToken) -> tuple[Delta, ...]:
        """Take the next token; returns what can be shown now. At the end of the answer, all of the rest.

        Ask `take_rewind` afterwards.
        """
        assert self._rewind is None and self.finish_reason is None, "a rewind, or the end, was overlooked"
        if self._guard is None:
            return self._take(token)
        self._guard.push(token.token_id)
        self._held.append(token)
        loop = self._guard.loop if self._checker.may_end_after(len(self._held)) else None
        if loop is not None:
            return self._go_back(loop.repeated) if self._rewinds_left else self.give_up(REPETITION)
        last = self._checker.ends_after(len(self._held), token.token_id)
        keep = 0 if last or not self._holds else min(self._guard.num_repeated, len(self._held))
        return self._release(len(self._held) - keep)

    def take_rewind(self) -> Rewind | None:
        """What the last token led to, once: the sequence and its sampler have to follow."""
        rewind, self._rewind = self._rewind, None
        return rewind

    def give_up(self, reason: Literal["abort", "error", "repetition"]) -> tuple[Delta, ...]:
        """End the answer from outside; returns what was held back. Does nothing to an answer that has ended."""
        deltas = self._release(len(self._held))
        if self.finish_reason is not None:
            return deltas
        self._given_up = reason
        return deltas + self._close()

    def choice(self) -> Choice:
        """The answer, ended. `raw_text` also has the stop string, if one ended it, and `token_ids` the end token."""
        reason, parts = self.finish_reason, self._splitter.result
        assert reason is not None, "the answer goes on"
        return Choice(
            text=parts.text,
            finish_reason=reason,
            index=self._index,
            reasoning=parts.reasoning,
            tool_calls=parts.tool_calls,
            stop_reason=self._stop_reason(),
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs) if self._logprobs else None,
            raw_text="".join(self._raw),
        )

    def _stop_reason(self) -> str | int | None:
        if self._given_up is not None:
            return REPETITION if self._given_up == REPETITION else None
        return self._checker.stop_reason

    def _go_back(self, repeated: int) -> tuple[Delta, ...]:
        """Drop the last tokens. All of them are held back still, and maybe some more."""
        deltas = self._release(len(self._held) - repeated)
        if self.finish_reason is not None:
            return deltas
        assert len(self._held) == repeated, (len(self._held), repeated)
        place, again = len(self._token_ids), self._held[0].token_id
        self._forbidden[place] = self._forbidden.get(place, frozenset()) | {again}
        self._rewind = Rewind(repeated, self._forbidden[place])
        self._rewinds_left -= 1
        self._held.clear()
        self._guard = LoopGuard(self._token_ids)
        return deltas

    def _release(self, count: int) -> tuple[Delta, ...]:
        """Let the first tokens of those held back through, as far as the answer goes."""
        deltas: tuple[Delta, ...] = ()
        released, self._held = self._held[:count], self._held[count:]
        for token in released:
            deltas += self._take(token)
            if self.finish_reason is not None:
                self._held.clear()
                break
        return deltas

    def _take(self, token: SampledToken) -> tuple[Delta, ...]:
        self._remember(token)
        ends = self._checker.ends_at(token.token_id)
        text = self._decode("" if ends else self._decoder.push(token.token_id))
        deltas = self._splitter.push(self._checker.push(token.token_id, text))
        return deltas if self._checker.finish_reason is None else deltas + self._close()

    def _remember(self, token: SampledToken) -> None:
        self._token_ids.append(token.token_id)
        if token.logprob is not None:
            self._logprobs.append(token.as_logprob())
        if token.token_id == self._end_think_id:
            self._end_think_id = None
        elif self._end_think_id is not None and not self._checker.ends_at(token.token_id):
            self.num_reasoning_tokens += 1

    def _close(self) -> tuple[Delta, ...]:
        return self._splitter.push(self._checker.close(self._decode(self._decoder.flush()))) + self._splitter.close()

    def _decode(self, text: str) -> str:
        self._raw.append(text)
        return text
