"""A prompt, and one answer to it as the model sees it: tokens, positions, blocks of the cache.

Shape names: T tokens of a prompt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qwen3vl.config import ModelConfig
from qwen3vl.engine.block_manager import chain
from qwen3vl.inputs import ModelInputs, VisualSpan
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.vision import VisualFeatures

if TYPE_CHECKING:
    from qwen3vl.engine.job import Job, Writer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A whole prompt with the position of each token, ready to be read by a Runner.

    Attributes:
        inputs: from the processor.
        positions_3T: MRoPE positions of the tokens.
        next_position: of the token behind the last.
        spans: (start, end) of each run of placeholders, in order; the runs of inputs.spans.
    """

    inputs: ModelInputs
    positions_3T: np.ndarray
    next_position: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, inputs: ModelInputs, config: ModelConfig) -> Prompt:
        merge_size = config.vision.spatial_merge_size
        positions, following = mrope_positions(inputs.num_tokens, inputs.spans, merge_size)
        return cls(inputs, positions, following, tuple((span.start, span.end(merge_size)) for span in inputs.spans))

    @property
    def num_tokens(self) -> int:
        return self.inputs.num_tokens

    def key(self, span: VisualSpan) -> tuple[int, str, int]:
        """What tells one run of placeholders from another: its place, its pixels (by digest), its frame."""
        return span.start, self.inputs.visuals[span.visual].receipt.digest, span.frame

    def spans_in(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(its number, first, last + 1) of each span that has placeholders first..last among tokens start..end."""
        for index in range(bisect_right(self.spans, start, key=lambda span: span[1]), len(self.spans)):
            first, last = self.spans[index]
            if first >= end:
                return
            yield index, max(first, start), min(last, end)


class Sequence:
    """One answer on its way: the prompt, the tokens behind it, and where their keys and values lie.

    Tokens are computed in order. All but the last `num_pending` are in the cache; when none is pending,
    the model's logits give the next token.

        prompt tokens ............ | answer tokens
        computed ........................... | pending

    Attributes:
        order: (arrival of the request, number of the answer): who comes first.
        job, writer: the request, and what makes text of the tokens; None in hf.generate.
        answer_ids: tokens behind the prompt.
        table: its blocks; empty while the sequence waits.
        num_computed: tokens whose keys and values are in the cache.
        features: visual tokens of the pictures and videos that are being read, by their number in the prompt.
        siblings: further answers to the same prompt, which begin when it has been read.
    """

    def __init__(
        self,
        prompt: Prompt,
        table: BlockTable,
        *,
        order: tuple[int, int] = (0, 0),
        job: Job | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.prompt, self.table, self.order = prompt, table, order
        self.job, self.writer = job, writer
        self.answer_ids: list[int] = []
        self.num_computed = 0
        self.features: dict[int, VisualFeatures] = {}
        self.siblings: list[Sequence] = []
        self._hashes: list[bytes] = []
        self._root = b""

    @property
    def num_tokens(self) -> int:
        return self.prompt.num_tokens + len(self.answer_ids)

    @property
    def num_pending(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """All is computed but for the last token of the answer."""
        return self.num_pending == 1 and bool(self.answer_ids)

    @property
    def is_streamed(self) -> bool:
        return self.job is not None and self.job.work.streamed

    @property
    def last_position(self) -> int:
        """Of the last token of the answer, on all three axes."""
        return self.prompt.next_position + len(self.answer_ids) - 1

    def ids(self, start: int, end: int) -> np.ndarray:
        """Tokens start..end of prompt and answer, int64."""
        length = self.prompt.num_tokens
        answer_ids = self.answer_ids[max(0, start - length) : max(0, end - length)]
        if start >= length:
            return np.array(answer_ids, dtype=np.int64)
        return np.concatenate((self.prompt.inputs.input_ids_T[start:end], np.array(answer_ids, dtype=np.int64)))

    def positions(self, start: int, end: int) -> np.ndarray:
        """Their positions, 3 x (end - start): behind the prompt all three axes count on together."""
        length, following = self.prompt.num_tokens, self.prompt.next_position
        behind = np.arange(max(start, length), max(end, length)) - length + following
        behind_3T = np.broadcast_to(behind, (3, len(behind)))
        if start >= length:
            return behind_3T
        return np.concatenate((self.prompt.positions_3T[:, start:end], behind_3T), axis=1)

    def block_hashes(self, root: bytes, num_blocks: int) -> list[bytes]:
        """Hashes of the first full blocks; see block_manager.chain.

        With blocks of 4, 3 text tokens and a picture of 6 tokens behind a marker: the second block holds
        placeholders 0 to 3, told from those of any other picture by "0:4:DIGEST:0:0", from token to token
        of the block, then the picture's digest, its frame, and the first of its tokens.
        """
        size = self.table.block_size
        if root != self._root:
            self._root, self._hashes = root, []
        for index in range(len(self._hashes), num_blocks):
            start, end = index * size, (index + 1) * size
            shown = []
            for number, first, last in self.prompt.spans_in(start, end):
                begin, digest, frame = self.prompt.key(self.prompt.inputs.spans[number])
                shown.append(f"{first - start}:{last - start}:{digest}:{frame}:{first - begin}")
            parent = self._hashes[-1] if self._hashes else root
            self._hashes.append(chain(parent, self.ids(start, end), shown))
        return self._hashes[:num_blocks]

    def truncate(self, num_tokens: int) -> None:
        """Take back the last tokens of the answer. The last that stays is pending: its logits are needed again."""
        assert self.prompt.num_tokens < num_tokens <= self.num_tokens, (num_tokens, self.num_tokens)
        del self.answer_ids[num_tokens - self.prompt.num_tokens :]
        del self._hashes[num_tokens // self.table.block_size :]
        self.num_computed = min(self.num_computed, num_tokens - 1)

    def next_unseen(self, num_tokens: int) -> int | None:
        """Number of the first picture or video among the next `num_tokens` tokens that has no features yet."""
        end = min(self.num_computed + num_tokens, self.prompt.num_tokens)
        for number, _, _ in self.prompt.spans_in(self.num_computed, end):
            visual = self.prompt.inputs.spans[number].visual
            if visual not in self.features:
                return visual
        return None

    def drop_features(self) -> None:
        """Those whose tokens are all computed are needed no more."""
        if self.features:
            left = self.prompt.spans_in(self.num_computed, self.prompt.num_tokens)
            needed = {self.prompt.inputs.spans[number].visual for number, _, _ in left}
            self.features = {visual: x for visual, x in self.features.items() if visual in needed}

    def visual_tokens(self, start: int, end: int) -> tuple[np.ndarray, VisualFeatures | None]:
        """-> which of tokens start..end are visual, counted from `start`, and what the vision tower gave for them."""
        at, ranges = [], dict[int, list[int]]()
        for number, first, last in self.prompt.spans_in(start, end):
            at.append(np.arange(first - start, last - start))
            span, (begin, behind) = self.prompt.inputs.spans[number], self.prompt.spans[number]
            token = span.frame * (behind - begin) + first - begin
            ranges.setdefault(span.visual, [token, token])[1] = token + last - first  # frames follow each other
        if not at:
            return np.empty(0, dtype=np.int64), None
        parts = [self.features[visual].slice(*tokens) for visual, tokens in ranges.items()]
        return np.concatenate(at), VisualFeatures.join(parts)
