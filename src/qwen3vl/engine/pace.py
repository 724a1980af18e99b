"""How much of a step may go to reading while somebody reads along with the answers that grow."""

from __future__ import annotations

import math

_LEAST = 16  # tokens: smaller pieces of a prompt are not worth a pass
_RECALIBRATE = 32  # steps with reading, after which one without shows what decoding alone takes
_MEMORY = 0.7  # of the running averages


class Pace:
    """Keeps reading (chunks of prompts, pieces of the vision tower) to its share of the time.

    It protects streamed answers only. Where callers want nothing but the end of theirs, all of them end sooner
    if reading goes first, and every pass has as many to decode as there are.

    Decoding alone takes 100 ms a step, the share is 0.5: reading may take 100 ms more. A chunk is made so
    long as should take that, by what chunks took so far. What takes longer is a debt, and nothing is
    read until steps without reading have paid it: a piece of 500 ms is followed by four of them.

    Args:
        share: of the time, above 0; 1 lets reading go first.
        max_tokens: per step.
    """

    def __init__(self, share: float, max_tokens: int) -> None:
        self._ratio = share / (1 - share) if share < 1 else math.inf
        self._max_tokens = max_tokens
        self._decode_seconds: float | None = None
        self._token_seconds: float | None = None
        self._debt = 0.0
        self._last_chunk = _LEAST
        self._since_decode_alone = 0

    def allowance(self, num_streamed: int) -> int:
        """Tokens that may be read in a step with so many streamed answers; 0: no piece of the vision tower either."""
        if num_streamed == 0 or self._ratio == math.inf:
            return self._max_tokens
        if self._decode_seconds is None or self._debt > 0 or self._since_decode_alone >= _RECALIBRATE:
            return 0
        if not self._token_seconds:
            return min(_LEAST, self._max_tokens)
        fitting = int(self._decode_seconds * self._ratio / self._token_seconds)
        return min(max(_LEAST, min(fitting, 2 * self._last_chunk)), self._max_tokens)

    def record(self, num_decoded: int, num_streamed: int, num_read: int, looked: bool, seconds: float) -> None:
        """A step is over: tokens decoded, answers among them that are streamed, tokens read; did the tower run?"""
        if num_decoded == 0:
            self._debt = 0.0
            if num_read and not looked:
                self._token_seconds = _average(self._token_seconds, seconds / num_read)
            return
        if num_read == 0 and not looked:
            self._decode_seconds = _average(self._decode_seconds, seconds)
            self._debt = max(0.0, self._debt - seconds * self._ratio)
            self._since_decode_alone = 0
            return
        decode_seconds = min(seconds, self._decode_seconds or 0.0)
        reading_seconds = seconds - decode_seconds
        debt = self._debt + reading_seconds - decode_seconds * self._ratio
        self._debt = max(0.0, debt) if num_streamed else 0.0
        self._since_decode_alone += 1
        if num_read and not looked:
            self._token_seconds = _average(self._token_seconds, reading_seconds / num_read)
            self._last_chunk = num_read


def _average(old: float | None, new: float) -> float:
    return new if old is None else _MEMORY * old + (1 - _MEMORY) * new
