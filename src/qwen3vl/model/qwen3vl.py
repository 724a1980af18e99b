"""The whole model: vision tower, fusion, decoder, head.

Shape names: T tokens of all sequences of a batch one behind the other ("packed"), P patches,
C values of a patch, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from qwen3vl.config import ModelConfig
from qwen3vl.model.attention import ForwardContext, make_attention
from qwen3vl.model.cache import PagedKVCache
from qwen3vl.model.fusion import Fused, fuse, placeholders
from qwen3vl.model.int8_cache import Int8KVCache
from qwen3vl.model.layers import Linear
from qwen3vl.model.packed_layers import PackedMatrix
from qwen3vl.model.text import TextAttention, TextModel
from qwen3vl.model.vision import Grid, VisionAttention, VisionTower, VisualFeatures, run_to_end
from qwen3vl.settings import KvDtype

T = TypeVar("T")

PATCHES_PER_CHUNK = 4096  # of the vision tower: bounds its memory, and how long others wait for one of its blocks


class Qwen3VL(nn.Module):
    """Qwen3-VL, dense or mixture of experts.

    patches_PC ─► visual (VisionTower) ─┬─ embeddings ─► take the placeholders' place ┐
                                        └─ DeepStack k ─► added after layer k         │
    input_ids_T ─► language_model.embed_tokens ───────────────────────────────────────┤
    positions_3T ─► interleaved MRoPE ─► q, k of every layer                          │
                    language_model.layers[0 .. L-1] ◄─────────────────────────────────┘
                    language_model.norm ─► lm_head ─► logits_RV

    Batches are packed, never padded; `ForwardContext` says where each sequence lies and which cache it
    continues. Positions come from model/positions.py.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision)
        self.language_model = TextModel(config.text)
        self.lm_head = Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.language_model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        return self.language_model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.norm.weight.dtype

    def use_attention(self, name: str | None) -> None:
        """None, "sdpa" or "flash_attention_2" everywhere, see `make_attention`. Raises UnsupportedOption."""
        attention = make_attention(name)
        for module in self.modules():
            if isinstance(module, (TextAttention, VisionAttention)):
                module.attention = attention

    @property
    def usual_kv_dtype(self) -> KvDtype:
        """Of a decoder whose weights are rounded to 4 or 8 bits keys and values are rounded to bfloat16, which changes
        much less; others keep their own type."""
        packed = any(isinstance(module, PackedMatrix) for module in self.language_model.layers[0].modules())
        return "bfloat16" if packed else "model"

    def new_cache(self, num_blocks: int, block_size: int = 16, kv_dtype: KvDtype | None = None) -> PagedKVCache:
        """Room for the keys and values of num_blocks x block_size tokens, each layer's where the layer is."""
        layers = self.language_model.layers
        devices = [next(layer.parameters()).device for layer in layers]
        kv_dtype = kv_dtype or self.usual_kv_dtype
        if kv_dtype == "int8":
            return Int8KVCache(self.config.text, num_blocks, block_size, self.dtype, devices)
        kept = torch.bfloat16 if kv_dtype == "bfloat16" and self.dtype == torch.float32 else self.dtype
        return PagedKVCache(self.config.text, num_blocks, block_size, self.dtype, devices, kept)

    def encode_visuals(self, patches_PC: Tensor, frames: Sequence[Grid]) -> VisualFeatures:
        """Run the vision tower, a bounded number of frames at a time. `frames` are their grids, in order."""
        total, covered = len(patches_PC), sum(height * width for height, width in frames)
        assert covered == total, f"{total} patches, but the frames' grids cover {covered}"
        return run_to_end(self.encode_visual_steps(lambda start, end: patches_PC[start:end], frames))

    def encode_visual_steps(
        self, read: Callable[[int, int], Tensor], frames: Sequence[Grid]
    ) -> Generator[int, None, VisualFeatures]:
        """`encode_visuals` in pieces: stops after each block, and between chunks of frames.

        A piece is one block over at most PATCHES_PER_CHUNK patches, or over one frame that is larger; or the
        mergers at its end. Each gives how many patches are done with the whole tower.

        Args:
            read: (start, end) -> those of the patches, asked for in order, each once.
        """
        start, total = 0, sum(height * width for height, width in frames)
        chunks, merged = _chunks(frames, PATCHES_PER_CHUNK), self.config.vision.spatial_merge_size**2
        whole: VisualFeatures | None = None
        for chunk in chunks:
            end = start + sum(height * width for height, width in chunk)
            part = yield from _giving(start, self.visual.encode_steps(read(start, end).to(self.device), chunk))
            if len(chunks) == 1:
                return part
            whole = whole or part.empty_like(total // merged)
            whole.put(start // merged, part)  # in place: joining at the end would hold everything twice
            start = end
            if start < total:
                yield start
        assert whole is not None, "no frames"
        return whole

    def forward(
        self,
        input_ids_T: Tensor,
        positions_3T: Tensor,
        context: ForwardContext,
        features: VisualFeatures | None = None,
        logits_at: Tensor | None = None,
        visual_at_M: Tensor | None = None,
    ) -> Tensor:
        """-> logits_RV for the tokens `logits_at` (indices; None: all T).

        `features` belong to the tokens `visual_at_M` (None: to the placeholders among these tokens), in
        order; None: there are none. An answer can hold the ids of placeholders too: nothing belongs to those.
        """
        return self.lm_head(self.hidden(input_ids_T, positions_3T, context, features, logits_at, visual_at_M))

    def hidden(
        self,
        input_ids_T: Tensor,
        positions_3T: Tensor,
        context: ForwardContext,
        features: VisualFeatures | None = None,
        hidden_at: Tensor | None = None,
        visual_at_M: Tensor | None = None,
    ) -> Tensor:
        """-> hidden_RD: `forward` without the head."""
        hidden_TD = self.language_model(self.embed(input_ids_T, features, visual_at_M), positions_3T, context)
        return hidden_TD if hidden_at is None else hidden_TD[hidden_at]

    def embed(
        self, input_ids_T: Tensor, features: VisualFeatures | None = None, visual_at_M: Tensor | None = None
    ) -> Fused:
        embeddings_TD = self.language_model.embed_tokens(input_ids_T)
        if features is None:
            return Fused(embeddings_TD)
        if visual_at_M is None:
            visual_at_M = placeholders(input_ids_T, (self.config.image_token_id, self.config.video_token_id))
        return fuse(embeddings_TD, features, visual_at_M)


def _giving(value: int, steps: Generator[None, None, T]) -> Generator[int, None, T]:
    """The same steps; each gives `value`."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield value


def _chunks(frames: Sequence[Grid], limit: int) -> list[list[Grid]]:
    """Neighbouring frames together up to `limit` patches; a larger frame goes alone."""
    chunks: list[list[Grid]] = []
    room = 0
    for height, width in frames:
        if not chunks or height * width > room:
            chunks.append([])
            room = limit
        chunks[-1].append((height, width))
        room -= height * width
    return chunks
