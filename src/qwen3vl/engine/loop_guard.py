"""Notices an answer that repeats itself without end.

A model that is stuck writes the same tokens round after round until its room is used up. So does an honest
copy of a table of zeros, for a while. What tells them apart is how much is said again: a round of a stuck
sentence has many different tokens, a round of empty cells has three. A repetition counts as a loop when

    rounds x different tokens of a round  >= EVIDENCE      and      rounds >= LEAST_ROUNDS

For tokens "a b c" over and over that is round 342, after 1024 tokens. A sentence of 60 tokens, 45 of them
different, is a loop in its 23rd round. Rows of an empty HTML table with 20 columns have about 108 tokens of 8
kinds: 127 equal rows are a table, 128 a loop. A row of 300 empty Markdown cells (2 tokens each) is none, a flat
list of 341 zeros (3 tokens each) is the longest that is none. Repetitions that count ("1. ...", "2. ...") or
vary are not noticed: they end with max_tokens.

Exact, for every period up to LONGEST_ROUND at once: of each distance it is known for how many tokens the answer
has been equal to itself at that distance. A new token lengthens these runs or ends them: a few microseconds of
vector work, however long the answer. Hence no penalty: what the model would say is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EVIDENCE = 1024
LEAST_ROUNDS = 8
LONGEST_ROUND = 2048


@dataclass(frozen=True, slots=True)
class Loop:
    """The last `repeated` tokens say again, and again, what the `period` tokens before them said."""

    period: int
    repeated: int


class LoopGuard:
    """Watches the tokens of one answer.

    Args:
        history: what the answer began with; only tokens that are pushed count as repeated.
    """

    def __init__(self, history: Sequence[int] = ()) -> None:
        self._tokens = np.zeros(2 * LONGEST_ROUND, dtype=np.int64)  # the last ones; the front half is dropped when full
        self._size = len(kept := history[-LONGEST_ROUND:])
        self._tokens[: self._size] = kept
        self._runs = np.zeros(LONGEST_ROUND, dtype=np.int64)  # [d - 1]: tokens equal to those d before, up to the last

    def push(self, token_id: int) -> None:
        """Example: of 5 6 5 6 5 the last 3 tokens equal those 2 before, the last one that 4 before: runs 0 3 0 1."""
        known = min(self._size, LONGEST_ROUND)
        before = self._tokens[self._size - known : self._size][::-1]
        runs = self._runs[:known]
        runs += 1
        runs *= before == token_id
        if self._size == len(self._tokens):
            self._tokens[:LONGEST_ROUND] = self._tokens[LONGEST_ROUND:]
            self._size = LONGEST_ROUND
        self._tokens[self._size] = token_id
        self._size += 1

    @property
    def num_repeated(self) -> int:
        """How many of the last tokens may turn out to be a loop behind its first round."""
        return int(self._runs.max())

    @property
    def loop(self) -> Loop | None:
        """The loop that the answer is in; of periods that are multiples of each other the shortest."""
        place = int(self._runs.argmax())
        period, repeated = place + 1, int(self._runs[place])
        rounds = repeated // period + 1
        if rounds < LEAST_ROUNDS or rounds * period < EVIDENCE:
            return None
        different = len(np.unique(self._tokens[self._size - period : self._size]))
        return Loop(period, repeated) if rounds * different >= EVIDENCE else None
