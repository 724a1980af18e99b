"""What a request needs, known from the headers of its media, and what there is for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.memory import kv_bytes_per_token
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.model.positions import mrope_positions
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.placeholders import Footprint, expand
from qwen3vl.processor.processor import Processor
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import Messages, Tool


@dataclass(frozen=True, slots=True)
class Needs:
    """What one request takes.

    Attributes:
        prompt_tokens: all of the prompt.
        next_position: of the first token of the answer; below prompt_tokens where there are pictures.
        answer_tokens: as asked for; None: what room there is, and at least one.
        pictures, videos: visual tokens of each, without markers and timestamps.
        num_frames: of each video, as the tower sees them.
        pixels_per_token: of a picture; a video shows two frames with a token.
        media_bytes: of all patches and features, while the request is read.
    """

    prompt_tokens: int
    next_position: int
    answer_tokens: int | None = None
    pictures: tuple[int, ...] = ()
    videos: tuple[int, ...] = ()
    num_frames: tuple[int, ...] = ()
    pixels_per_token: int = 1
    media_bytes: int = 0

    @property
    def least_answer(self) -> int:
        return self.answer_tokens or 1

    @property
    def num_tokens(self) -> int:
        return self.prompt_tokens + self.least_answer

    @property
    def visual_tokens(self) -> int:
        return sum(self.pictures) + sum(self.videos)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is for one request when it has everything.

    Attributes:
        context_tokens: bound on prompt + answer.
        positions: bound on positions; None where a stated max_context lifts it.
        cache_tokens: tokens that the key/value cache holds.
        bytes_per_token: of that cache.
        media_bytes: memory for the patches and features of one request.
        native_context: what the checkpoint was made for: how far max_context may be raised by a hint.
        int8_cache_tokens: what the same memory would hold as int8; None where it is int8 already.
    """

    context_tokens: int
    positions: int | None
    cache_tokens: int
    bytes_per_token: int
    media_bytes: int
    native_context: int
    int8_cache_tokens: int | None = None

    @classmethod
    def of(
        cls, config: ModelConfig, settings: EngineSettings, dtype: torch.dtype, cache_tokens: int, media_bytes: int
    ) -> Capacity:
        """`dtype` is the model's; `cache_tokens` follow from the number of blocks that were made."""
        text, stated = config.text, settings.max_context
        per_token = kv_bytes_per_token(text, dtype, settings.kv_dtype or "model")
        as_int8 = cache_tokens * per_token // kv_bytes_per_token(text, dtype, "int8")
        return cls(
            context_tokens=stated or text.max_position_embeddings,
            positions=text.max_positions if stated is None else None,
            cache_tokens=cache_tokens,
            bytes_per_token=per_token,
            media_bytes=media_bytes,
            native_context=text.max_position_embeddings,
            int8_cache_tokens=as_int8 if settings.kv_dtype != "int8" else None,
        )

    def room(self, needs: Needs) -> int:
        """How many tokens can follow the prompt; below 1 if it is too long itself."""
        most = min(self.context_tokens, self.cache_tokens) - needs.prompt_tokens
        return most if self.positions is None else min(most, self.positions - needs.next_position)

    def holds(self, needs: Needs) -> bool:
        return needs.least_answer <= self.room(needs) and needs.media_bytes <= self.media_bytes


def measure(
    processor: Processor,
    config: ModelConfig,
    messages: Messages,
    params: SamplingParams,
    *,
    media: MediaOptions | None = None,
    tools: Sequence[Tool] | None = None,
    policy: MediaPolicy | None = None,
    value_bytes: int = 4,
) -> Needs:
    """What a request needs, from the headers of its media.

    Args:
        value_bytes: of a feature: the size of the model's dtype.

    Raises:
        InvalidMessage, InvalidParams, MediaError: as the processor does, but for what only decoding shows.
    """
    conversation = as_messages(messages)
    prompt = processor.render(conversation, tools=tools)
    footprints = processor.footprints(conversation, media=media, policy=policy)
    merge_size = config.vision.spatial_merge_size
    ids_T, spans = expand(prompt, footprints, processor.tokenizer, merge_size)
    tokens = {kind: _tokens(footprints, kind, merge_size) for kind in ("image", "video")}
    groups = [footprint.grid_thw[0] for footprint in footprints if footprint.kind == "video"]
    return Needs(
        prompt_tokens=len(ids_T),
        next_position=mrope_positions(len(ids_T), spans, merge_size)[1],
        answer_tokens=params.max_tokens,
        pictures=tokens["image"],
        videos=tokens["video"],
        num_frames=tuple(group * config.vision.temporal_patch_size for group in groups),
        pixels_per_token=(config.vision.patch_size * merge_size) ** 2,
        media_bytes=sum(map(sum, tokens.values())) * _bytes_per_visual_token(config, value_bytes),
    )


def _tokens(footprints: Sequence[Footprint], kind: str, merge_size: int) -> tuple[int, ...]:
    grids = [footprint.grid_thw for footprint in footprints if footprint.kind == kind]
    return tuple(t * h * w // merge_size**2 for t, h, w in grids)


def _bytes_per_visual_token(config: ModelConfig, value_bytes: int) -> int:
    """Its patches' 8-bit pixels, and its features for the decoder's input and for DeepStack."""
    vision = config.vision
    features = (1 + len(vision.deepstack_visual_indexes)) * vision.out_hidden_size * value_bytes
    return vision.spatial_merge_size**2 * vision.patch_values + features
