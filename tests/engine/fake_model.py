"""A model whose next token is a hash of everything that its sequence has in the cache: one wrong slot, one wrong
position or one wrong picture changes the answer. It costs nothing, so schedules can be tried by the thousand.

The key of a token is one number, made of its id, its position and what the vision tower gave for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen3vl.engine.sequence import Prompt
from qwen3vl.inputs import ModelInputs
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import PagedKVCache
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures
from tests import models

VOCABULARY = 60  # few, so that equal tokens are common


class FakeTower:
    def encode_steps(self, patches_PC: Tensor, frames: Sequence[Any]) -> Generator[None, None, VisualFeatures]:
        yield
        yield
        return VisualFeatures(patches_PC.double().sum(1).unflatten(0, (-1, 4)).sum(1)[:, None], ())


class FakeModel:
    """What Engine and Runner use of Qwen3VL."""

    def __init__(self) -> None:
        config = models.small_config()
        text = replace(config.text, vocab_size=VOCABULARY, num_hidden_layers=1, num_key_value_heads=1, head_dim=1)
        self.config = replace(config, text=text, image_token_id=50, video_token_id=51, vision_start_token_id=52)
        self.device, self.dtype, self.visual = torch.device("cpu"), torch.float64, FakeTower()
        self.passes: list[tuple[int, ...]] = []  # lengths of the segments of each

    encode_visual_steps: Any = Qwen3VL.encode_visual_steps

    def new_cache(self, num_blocks: int, block_size: int, *_: Any, **__: Any) -> PagedKVCache:
        cache = PagedKVCache(self.config.text, num_blocks, block_size, torch.float64, [self.device])
        for pool_KSH in cache.read(0, (0, num_blocks * block_size)):
            pool_KSH.fill_(float("nan"))
        return cache

    def lm_head(self, hidden_RV: Tensor) -> Tensor:
        return hidden_RV

    def hidden(
        self,
        ids_T: Tensor,
        positions_3T: Tensor,
        context: ForwardContext,
        features: VisualFeatures | None,
        hidden_at_R: Tensor,
        visual_at_M: Tensor | None,
    ) -> Tensor:
        seen = np.zeros(len(ids_T))
        if features is not None:
            seen[visual_at_M] = features.embeddings_MD[:, 0]
        keys = torch.from_numpy(keys_of(ids_T.numpy(), positions_3T.numpy(), seen))[:, None, None]
        assert context.cache is not None and context.slot_mapping_T is not None
        context.cache.write(0, context.slot_mapping_T, keys, -keys)
        self.passes.append(tuple(segment.length for segment in context.segments))
        rows = []
        for at in hidden_at_R.tolist():
            (segment,) = [s for s in context.segments if s.start <= at < s.start + s.length]
            parts = segment.read(context.cache, 0, segment.past + at - segment.start + 1)
            held = np.concatenate([k_KSH.numpy().ravel() for k_KSH, _ in parts])
            rows.append(torch.nn.functional.one_hot(torch.tensor(next_token(held)), VOCABULARY).double())
        return torch.stack(rows) if rows else torch.empty(0, VOCABULARY)


def keys_of(ids_T: np.ndarray, positions_3T: np.ndarray, seen_T: np.ndarray) -> np.ndarray:
    place = positions_3T[0] * 1.0 + positions_3T[1] * 1e-3 + positions_3T[2] * 1e-6
    return ids_T * 1e4 + place + np.float64(seen_T) * 1e5


def next_token(keys_S: np.ndarray) -> int:
    assert not np.isnan(keys_S).any(), "a slot was read that nobody had written to"
    return int.from_bytes(hashlib.blake2b(keys_S.tobytes(), digest_size=4).digest()) % VOCABULARY


def expected_ids(inputs: ModelInputs, num_tokens: int, merge_size: int = 2) -> tuple[int, ...]:
    """The answer, computed from nothing but the definition."""
    seen = np.zeros(inputs.num_tokens + num_tokens)
    for span in inputs.spans:
        area = span.grid_hw[0] * span.grid_hw[1]
        patches_PC = inputs.visuals[span.visual].patches.read(span.frame * area, (span.frame + 1) * area)
        features = torch.from_numpy(patches_PC).double().sum(1).unflatten(0, (-1, 4)).sum(1)
        seen[span.start : span.end(merge_size)] = features.numpy()
    ids = inputs.input_ids_T.tolist()
    for _ in range(num_tokens):
        positions_3T, _ = mrope_positions(len(ids), inputs.spans, merge_size)
        ids.append(next_token(keys_of(np.array(ids), positions_3T, seen[: len(ids)])))
    return tuple(ids[inputs.num_tokens :])


def prompt_of(model: FakeModel, inputs: ModelInputs) -> Prompt:
    return Prompt.of(inputs, model.config)
