"""When an answer ends, and which text may be shown before that is known.

Stop strings are looked for in the whole generated text, reasoning and tool calls included, wherever the
tokens' borders fall. The match that is complete first ends the answer; of several that are complete with
the same character the longest counts. So "abc" and "b" in "xabc" stop at "b": the answer is "xa". (The
rule looks at no character beyond the match, so no token is generated only to decide it.)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from qwen3vl.settings import SamplingParams


class StopChecker:
    """Watches the tokens and the text of one sequence. For each token, in order:

        text = "" if checker.ends_at(token_id) else decoder.push(token_id)
        shown = checker.push(token_id, text)
        if checker.finish_reason is not None:
            shown += checker.close(decoder.flush())

    Args:
        params: stop, stop_token_ids, ignore_eos, min_tokens and max_tokens are used.
        eos_ids: the checkpoint's end tokens.
        max_tokens: a lower bound than `params.max_tokens`: the room left in the context.

    Attributes:
        finish_reason: None while the answer goes on. A stop wins over the length when one token brings both.
        stop_reason: the stop string, or the id of the end token.
        num_tokens: tokens so far, an end token included.

    An end token counts only after `min_tokens` other tokens (transformers' min_new_tokens). A stop
    string counts when it is complete with token number `min_tokens` or later; one that was complete
    earlier stays part of the answer.
    """

    def __init__(self, params: SamplingParams, eos_ids: Collection[int] = (), max_tokens: int | None = None) -> None:
        limits = [limit for limit in (params.max_tokens, max_tokens) if limit is not None]
        self.finish_reason: Literal["stop", "length"] | None = None
        self.stop_reason: str | int | None = None
        self.num_tokens = 0
        self._limit = min(limits, default=None)
        self._min_tokens = params.min_tokens
        self._end_ids = frozenset(params.stop_token_ids) | frozenset(() if params.ignore_eos else eos_ids)
        self._stops = params.stop
        self._held = ""  # not shown yet: it may be the beginning of a stop string
        self._immune = 0  # characters of _held that came before token number min_tokens

    def ends_at(self, token_id: int) -> bool:
        """Whether this token, coming next, ends the answer; its text is then not part of it."""
        return token_id in self._end_ids and self.num_tokens >= self._min_tokens

    def ends_after(self, num_more: int, token_id: int) -> bool:
        """Whether the answer ends with `token_id` as the last of so many tokens that come next: by a token or by
        its length."""
        num_tokens = self.num_tokens + num_more
        return num_tokens == self._limit or (token_id in self._end_ids and num_tokens > self._min_tokens)

    def may_end_after(self, num_more: int) -> bool:
        """Whether `min_tokens` are reached with so many tokens more."""
        return self.num_tokens + num_more >= self._min_tokens

    def push(self, token_id: int, text: str) -> str:
        """Take the next token and the text that the decoder released with it; returns what may be shown."""
        assert self.finish_reason is None, "the answer has ended"
        ends = self.ends_at(token_id)
        self.num_tokens += 1
        shown = self._release(text)
        if self.finish_reason is None and ends:
            self.finish_reason, self.stop_reason = "stop", token_id
        elif self.finish_reason is None and self.num_tokens == self._limit:
            self.finish_reason = "length"
        return shown

    def close(self, text: str = "") -> str:
        """End the answer: the decoder's last text goes in, everything still held back comes out."""
        if isinstance(self.stop_reason, str):
            return ""
        shown = self._release(text)
        if isinstance(self.stop_reason, str):
            return shown
        shown, self._held = shown + self._held, ""
        return shown

    def _release(self, text: str) -> str:
        self._held += text
        if not self._stops:
            shown, self._held = self._held, ""
            return shown
        if self.num_tokens < self._min_tokens:
            self._immune = len(self._held)
        found = self._first_stop()
        if found is not None:
            start, self.stop_reason = found
            self.finish_reason = "stop"
            shown, self._held = self._held[:start], ""
            return shown
        keep = max(longest_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        self._immune = max(0, self._immune - cut)
        return shown

    def _first_stop(self) -> tuple[int, str] | None:
        """Start and text of the stop string that is complete first, beyond the immune characters."""
        matches = []
        for stop in self._stops:
            start = self._held.find(stop, max(0, self._immune - len(stop) + 1))
            if start >= 0:
                matches.append((start + len(stop), start, stop))
        return min(matches)[1:] if matches else None


def longest_overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag` without being all of it.

    "so </th" and "</think>" overlap by 4; "aab" and "abab" by 2.
    """
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
