"""A batch through the model: pieces of the vision tower, then one pass of the decoder.

Shape names: T tokens of the batch, R rows of logits, M visual tokens among the T, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwen3vl.engine.memory import give_back
from qwen3vl.engine.scheduler import Batch, Chunk
from qwen3vl.engine.sequence import Sequence
from qwen3vl.engine.vision_cache import VisionCache
from qwen3vl.inputs import Visual
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures

_MANY_PATCHES = 1024  # of a picture, whose steps took memory worth giving back
_MANY_TOKENS = 512  # of a pass, likewise: the head's weights come on top of it


@dataclass(frozen=True, slots=True)
class PassInputs:
    """What a pass of the decoder is computed from."""

    ids_T: Tensor
    positions_3T: Tensor
    context: ForwardContext
    features: VisualFeatures | None
    visual_at_M: Tensor | None
    logits_at_R: Tensor


@dataclass(slots=True)
class _Looking:
    """The vision tower in the middle of picture or video `number` of a prompt."""

    number: int
    steps: Generator[int, None, VisualFeatures]
    patches_done: int = 0


class Runner:
    """Runs one model over one cache; knows nothing of text, settings or requests."""

    def __init__(self, model: Qwen3VL, cache: PagedKVCache, vision_cache: VisionCache | None = None) -> None:
        self.model, self.cache = model, cache
        self.vision_cache = VisionCache(0) if vision_cache is None else vision_cache  # an empty one is falsy
        self._looking: dict[Sequence, _Looking] = {}

    def needs_look(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether the next `num_tokens` tokens show something that is neither seen nor remembered."""
        while (visual := sequence.next_unseen(num_tokens)) is not None:
            digest = sequence.prompt.inputs.visuals[visual].receipt.digest
            features = self.vision_cache.get(digest, self.model.dtype)
            if features is None:
                return True
            sequence.features[visual] = features
            if (looking := self._looking.get(sequence)) is not None and looking.number == visual:
                self.forget(sequence)  # another request has seen it to its end meanwhile
            if sequence.job is not None:
                sequence.job.remembered.add(visual)
        return False

    @torch.inference_mode()
    def look(self, sequence: Sequence, num_tokens: int) -> int:
        """The next piece of the vision tower for what the next tokens show. -> how many patches are done with it."""
        if sequence not in self._looking:
            number = sequence.next_unseen(num_tokens)
            assert number is not None
            self._looking[sequence] = _Looking(number, self._encode(sequence.prompt.inputs.visuals[number]))
        looking = self._looking[sequence]
        before, visual = looking.patches_done, sequence.prompt.inputs.visuals[looking.number]
        try:
            looking.patches_done = next(looking.steps)
        except StopIteration as end:
            del self._looking[sequence]
            looking.patches_done = len(visual.patches)
            sequence.features[looking.number] = end.value
            self.vision_cache.put(visual.receipt.digest, end.value)
            if sequence.job is not None:
                sequence.job.seen.add(looking.number)
            if looking.patches_done >= _MANY_PATCHES and self.model.device.type == "cpu":
                give_back()
        return looking.patches_done - before

    def forget(self, sequence: Sequence) -> None:
        """The sequence waits or has ended: what was begun for it is dropped."""
        self._looking.pop(sequence, None)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """-> logits_RV, a row for each of batch.writing."""
        for source, target in batch.copies:
            self.cache.copy_block(source, target)
        if not batch.chunks:
            return torch.empty(0, self.model.config.text.vocab_size, device=self.model.device)
        return self._forward(self._inputs(batch))

    def read(self, sequence: Sequence, max_tokens: int = 2048) -> Tensor:
        """Compute all that is pending, without a scheduler. -> logits_V behind it.

        The table of the sequence has room for it. Passes are of at most `max_tokens` tokens.
        """
        while True:
            if self.needs_look(sequence, max_tokens):
                self.look(sequence, max_tokens)
                continue
            chunk = Chunk(sequence, min(sequence.num_pending, max_tokens))
            last = chunk.length == sequence.num_pending
            logits_RV = self.run(Batch((chunk,), ((0, sequence),) if last else ()))
            sequence.num_computed += chunk.length
            sequence.drop_features()
            if last:
                return logits_RV[0]

    def decode(self, sequences: SequenceOf[Sequence]) -> Tensor:
        """One pass over the last token of each, without a scheduler. -> logits_BV."""
        assert all(sequence.num_pending == 1 for sequence in sequences)
        chunks = tuple(Chunk(sequence, 1) for sequence in sequences)
        logits_BV = self.run(Batch(chunks, tuple(enumerate(sequences))))
        for sequence in sequences:
            sequence.num_computed += 1
        return logits_BV

    def _forward(self, inputs: PassInputs) -> Tensor:
        hidden_RD = self.model.hidden(
            inputs.ids_T,
            inputs.positions_3T,
            inputs.context,
            inputs.features,
            inputs.logits_at_R,
            inputs.visual_at_M,
        )
        if len(inputs.ids_T) >= _MANY_TOKENS and len(hidden_RD) and self.model.device.type == "cpu":
            give_back()
        return self.model.lm_head(hidden_RD)

    def _inputs(self, batch: Batch) -> PassInputs:
        device = self.model.device
        ends = np.cumsum([chunk.length for chunk in batch.chunks])
        ids_T, positions_3T = np.empty(ends[-1], np.int64), np.empty((3, ends[-1]), np.int64)
        shown_at, features = [], []
        for chunk, end in zip(batch.chunks, ends.tolist(), strict=True):
            sequence, start, first = chunk.sequence, chunk.sequence.num_computed, end - chunk.length
            if sequence.is_decoding:
                ids_T[first], positions_3T[:, first] = sequence.answer_ids[-1], sequence.last_position
                continue
            ids_T[first:end] = sequence.ids(start, start + chunk.length)
            positions_3T[:, first:end] = sequence.positions(start, start + chunk.length)
            at, part = sequence.visual_tokens(start, start + chunk.length)
            if part is not None:
                shown_at.append(at + first)
                features.append(part)
        return PassInputs(
            torch.from_numpy(ids_T).to(device),
            torch.from_numpy(positions_3T).to(device),
            ForwardContext.paged(self.cache, (_part(chunk) for chunk in batch.chunks)),
            VisualFeatures.join(features) if features else None,
            torch.from_numpy(np.concatenate(shown_at)).to(device) if features else None,
            torch.from_numpy(ends[[number for number, _ in batch.writing]] - 1).to(device),
        )

    def _encode(self, visual: Visual) -> Generator[int, None, VisualFeatures]:
        frames, height, width = visual.grid_thw

        def read(start: int, end: int) -> Tensor:
            return torch.from_numpy(visual.patches.read(start, end))

        return self.model.encode_visual_steps(read, [(height, width)] * frames)


def _part(chunk: Chunk) -> tuple[BlockTable, int, int]:
    return chunk.sequence.table, chunk.sequence.num_computed, chunk.length
