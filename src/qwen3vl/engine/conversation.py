"""One conversation in a cache of its own, for SingleEngine.

Shape names: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from qwen3vl.engine.sequence import Prompt
from qwen3vl.inputs import VisualSpan
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures

PREFILL_CHUNK = 2048  # tokens of a prompt per pass: bounds activations, however long the prompt

Progress = Callable[[str, int, int], None]  # (what: "vision" or "prefill", done, of)


@dataclass(slots=True)
class Conversation:
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


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The logits behind a prompt, what was reused, and the seconds that vision and decoder took."""

    logits_V: Tensor
    num_cached_tokens: int
    vision_seconds: float
    prefill_seconds: float


class ConversationRunner:
    """Runs one model; knows nothing of text, settings or requests."""

    def __init__(self, model: Qwen3VL, prefill_chunk: int = PREFILL_CHUNK) -> None:
        self.model = model
        self.prefill_chunk = prefill_chunk

    def new_sequence(self) -> Conversation:
        return Conversation()

    @torch.inference_mode()
    def prefill(
        self, sequence: Conversation, prompt: Prompt, *, room: int = 0, progress: Progress | None = None
    ) -> Prefilled:
        """Make `sequence` hold exactly `prompt`, reading only what it does not hold yet.

        `room` is how many tokens will follow, so that the cache is laid out once. If this is
        interrupted, the sequence holds the chunks that were read, and a later call goes on from there.
        """
        shared = sequence.shared_prefix(prompt)
        sequence.truncate(shared)
        started = perf_counter()
        features = self._features(prompt, shared, progress)
        read_from = perf_counter()
        sequence.reserve(prompt.num_tokens + room, self.model)
        used = 0
        for start in range(shared, prompt.num_tokens, self.prefill_chunk):
            end = min(start + self.prefill_chunk, prompt.num_tokens)
            count = prompt.num_placeholders(start, end)
            logits_1V = self._chunk(sequence, prompt, start, end, features and features.slice(used, used + count))
            used += count
            if progress is not None:
                progress("prefill", end - shared, prompt.num_tokens - shared)
        sequence.next_position = prompt.next_position
        return Prefilled(logits_1V[0], shared, read_from - started, perf_counter() - read_from)

    @torch.inference_mode()
    def decode(self, sequences: SequenceOf[Conversation], token_ids: SequenceOf[int]) -> Tensor:
        """Append one token to each sequence. -> logits_BV for the tokens behind them."""
        return torch.cat([self._decode_one(s, token) for s, token in zip(sequences, token_ids, strict=True)])

    def _decode_one(self, sequence: Conversation, token_id: int) -> Tensor:
        device = self.model.device
        sequence.reserve(sequence.num_cached_tokens + 1, self.model)
        positions_31 = torch.tensor([sequence.next_position], device=device).expand(3, -1)
        logits_1V = self.model(torch.tensor([token_id], device=device), positions_31, self._context(sequence, 1))
        sequence.token_ids.append(token_id)
        sequence.next_position += 1
        return logits_1V

    def _context(self, sequence: Conversation, length: int) -> ForwardContext:
        assert sequence.cache is not None
        return ForwardContext.paged(sequence.cache, [(sequence.table, sequence.num_cached_tokens, length)])

    def _chunk(
        self, sequence: Conversation, prompt: Prompt, start: int, end: int, features: VisualFeatures | None
    ) -> Tensor:
        device = self.model.device
        ids_T = torch.from_numpy(prompt.inputs.input_ids_T[start:end]).to(device)
        positions_3T = torch.from_numpy(prompt.positions_3T[:, start:end]).to(device)
        context = self._context(sequence, end - start)
        last = torch.tensor([end - start - 1], device=device)
        logits_1V = self.model(ids_T, positions_3T, context, features if features else None, last)
        sequence.token_ids += prompt.inputs.input_ids_T[start:end].tolist()
        sequence.visuals += [prompt.key(span) for span in prompt.inputs.spans if start <= span.start < end]
        return logits_1V

    def _features(self, prompt: Prompt, shared: int, progress: Progress | None) -> VisualFeatures | None:
        """The visual tokens behind the first `shared` tokens: whole frames, since no prefix ends inside one."""
        spans = [span for span in prompt.inputs.spans if span.start >= shared]
        if not spans:
            return None
        total, done, parts = sum(h * w for h, w in (span.grid_hw for span in spans)), 0, []
        for own in _by_visual(spans):
            area = own[0].grid_hw[0] * own[0].grid_hw[1]
            patches = prompt.inputs.visuals[own[0].visual].patches
            patches_PC = torch.from_numpy(patches.read(own[0].frame * area, (own[-1].frame + 1) * area))

            def report(part: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress("vision", before + part, total)

            parts.append(self.model.encode_visuals(patches_PC, [span.grid_hw for span in own], report))
            done += area * len(own)
        return VisualFeatures.join(parts)


def _by_visual(spans: SequenceOf[VisualSpan]) -> list[list[VisualSpan]]:
    """Spans of one picture or video together; they follow each other."""
    groups: list[list[VisualSpan]] = []
    for span in spans:
        if groups and groups[-1][-1].visual == span.visual:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
