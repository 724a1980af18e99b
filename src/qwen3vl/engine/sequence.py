"""One conversation as the model holds it: its tokens, its cache, and where it goes on.

Shape names: T tokens of a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qwen3vl.config import ModelConfig
from qwen3vl.errors import ContextTooLong
from qwen3vl.inputs import ModelInputs, VisualSpan
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.qwen3vl import Qwen3VL


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

    def num_placeholders(self, start: int, end: int) -> int:
        """Visual tokens among tokens start..end."""
        return sum(max(0, min(end, b) - max(start, a)) for a, b in self.spans)


@dataclass(slots=True)
class Sequence:
    """Tokens whose keys and values are in a cache of their own.

    A later prompt that begins like this one (the next turn of a conversation) goes on from the part
    they share: same tokens, and the same pictures by digest.

    Attributes:
        token_ids: the tokens in the cache.
        next_position: position of the next token.
        visuals: Prompt.key of every visual span that begins among the tokens, in order.
    """

    cache: PagedKVCache | None = None
    table: BlockTable = field(default_factory=lambda: BlockTable(16))
    token_ids: list[int] = field(default_factory=list)
    next_position: int = 0
    visuals: list[tuple[int, str, int]] = field(default_factory=list)

    @property
    def num_cached_tokens(self) -> int:
        return len(self.token_ids)

    def shared_prefix(self, prompt: Prompt) -> int:
        """How many tokens of `prompt` are in the cache already; at least one is left to be read.

        A prefix never ends inside a picture, and never goes past one that differs.
        """
        ids, limit = prompt.inputs.input_ids_T, min(self.num_cached_tokens, prompt.num_tokens - 1)
        held = np.asarray(self.token_ids[:limit], dtype=np.int64)
        differing = np.flatnonzero(held != ids[:limit])
        shared = int(differing[0]) if len(differing) else limit
        known = set(self.visuals)
        for span, (start, end) in zip(prompt.inputs.spans, prompt.spans, strict=True):
            if start >= shared:
                break
            if end > shared or prompt.key(span) not in known:
                return start
        return shared

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        del self.token_ids[length:]  # first: an interrupt here must not leave tokens that the cache has not
        self.visuals = [visual for visual in self.visuals if visual[0] < length]

    def reserve(self, num_tokens: int, model: Qwen3VL) -> None:
        """Make room for so many tokens, and a quarter more where it has to grow again."""
        if num_tokens <= self.table.num_slots:
            return
        tokens = max(num_tokens, self.table.num_slots * 5 // 4)
        larger, held = model.new_cache(-(-tokens // self.table.block_size)), len(self.table)
        for layer in range(model.config.text.num_hidden_layers if held else 0):
            assert self.cache is not None
            whole = (0, self.table.num_slots)
            for new, old in zip(larger.read(layer, whole), self.cache.read(layer, whole), strict=True):
                new.copy_(old)
        self.cache = larger
        for block in range(held, larger.num_blocks):
            self.table.append(block)


def room_for_answer(prompt: Prompt, config: ModelConfig, max_context: int | None = None) -> int:
    """How many tokens can follow the prompt; below 0 if it is too long itself.

    Tokens are bounded by max_position_embeddings, positions (fewer, where there are pictures) by what
    rotary was made for: with YaRN factor x original. `max_context` takes the place of both bounds.
    """
    if max_context is not None:
        return max_context - prompt.num_tokens
    text = config.text
    return min(text.max_position_embeddings - prompt.num_tokens, text.max_positions - prompt.next_position)


def check_context(prompt: Prompt, new_tokens: int, config: ModelConfig, max_context: int | None = None) -> None:
    """Raise ContextTooLong, with the numbers, if prompt and answer do not fit (see room_for_answer)."""
    if new_tokens <= room_for_answer(prompt, config, max_context):
        return
    limit = max_context or config.text.max_position_embeddings
    tokens = prompt.num_tokens + new_tokens
    if tokens > limit:
        raise ContextTooLong(
            f"the prompt has {prompt.num_tokens} tokens and the answer needs room for {new_tokens}: "
            f"together {tokens}, but the context holds {limit}"
        )
    raise ContextTooLong(
        f"prompt and answer reach position {prompt.next_position + new_tokens}, but the rotary embedding is made for "
        f"{config.text.max_positions}; state max_context to go beyond it all the same"
    )
