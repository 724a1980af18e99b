"""One answer as it grows: from sampled tokens to Deltas, and at the end to a Choice.

token --decoder--> text --StopChecker--> what may be shown --OutputSplitter--> Deltas
"""

from __future__ import annotations

from typing import Literal, Protocol

from qwen3vl.engine.output import OutputSplitter, final_reason
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.types import Choice, Delta, FinishReason, TokenLogprob


class TextDecoder(Protocol):
    """processor.tokenizer.IncrementalDecoder, or a fake."""

    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


class AnswerBuilder:
    """Joins decoder, stop checker and splitter for one of the `n` answers of a request.

    Args:
        end_think_id: the token of `</think>` where the answer starts inside the reasoning, else None.

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
    ) -> None:
        self.num_reasoning_tokens = 0
        self._decoder, self._checker, self._splitter = decoder, checker, splitter
        self._index = index
        self._end_think_id = end_think_id
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._raw: list[str] = []
        self._given_up: Literal["abort", "error"] | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while the answer goes on."""
        stopped = self._given_up or self._checker.finish_reason
        return None if stopped is None else final_reason(stopped, self._splitter.result.tool_calls)

    def push(self, token: SampledToken) -> tuple[Delta, ...]:
        """Take the next token; returns what can be shown now. At the end of the answer, all of the rest."""
        self._remember(token)
        ends = self._checker.ends_at(token.token_id)
        text = self._decode("" if ends else self._decoder.push(token.token_id))
        deltas = self._splitter.push(self._checker.push(token.token_id, text))
        return deltas if self._checker.finish_reason is None else deltas + self._close()

    def give_up(self, reason: Literal["abort", "error"]) -> tuple[Delta, ...]:
        """End the answer from outside; returns what was held back. Does nothing to an answer that has ended."""
        if self.finish_reason is not None:
            return ()
        self._given_up = reason
        return self._close()

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
            stop_reason=None if self._given_up else self._checker.stop_reason,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs) if self._logprobs else None,
            raw_text="".join(self._raw),
        )

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
