"""Puts tokens through the model: prompts in chunks, then answers token by token.

Shape names: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.inputs import VisualSpan
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures

PREFILL_CHUNK = 2048  # tokens of a prompt per pass: bounds activations, however long the prompt

Progress = Callable[[str, int, int], None]  # (what: "vision" or "prefill", done, of)


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The logits behind a prompt, what was reused, and the seconds that vision and decoder took."""

    logits_V: Tensor
    num_cached_tokens: int
    vision_seconds: float
    prefill_seconds: float


class Runner:
    """Runs one model; knows nothing of text, settings or requests."""

    def __init__(self, model: Qwen3VL, prefill_chunk: int = PREFILL_CHUNK) -> None:
        self.model = model
        self.prefill_chunk = prefill_chunk

    def new_sequence(self) -> Sequence:
        return Sequence()

    @torch.inference_mode()
    def prefill(
        self, sequence: Sequence, prompt: Prompt, *, room: int = 0, progress: Progress | None = None
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
    def decode(self, sequences: SequenceOf[Sequence], token_ids: SequenceOf[int]) -> Tensor:
        """Append one token to each sequence. -> logits_BV for the tokens behind them."""
        return torch.cat([self._decode_one(s, token) for s, token in zip(sequences, token_ids, strict=True)])

    def _decode_one(self, sequence: Sequence, token_id: int) -> Tensor:
        device = self.model.device
        sequence.reserve(sequence.num_cached_tokens + 1, self.model)
        positions_31 = torch.tensor([sequence.next_position], device=device).expand(3, -1)
        logits_1V = self.model(torch.tensor([token_id], device=device), positions_31, self._context(sequence, 1))
        sequence.token_ids.append(token_id)
        sequence.next_position += 1
        return logits_1V

    def _context(self, sequence: Sequence, length: int) -> ForwardContext:
        assert sequence.cache is not None
        return ForwardContext.paged(sequence.cache, [(sequence.table, sequence.num_cached_tokens, length)])

    def _chunk(
        self, sequence: Sequence, prompt: Prompt, start: int, end: int, features: VisualFeatures | None
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
