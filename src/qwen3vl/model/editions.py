"""The sizes of the six released editions, and shrunken ones of the same shape for tests.

Sources: the official 4B config.json; for the others the presets in pytorch/torchtitan's
experiments/qwen3_vl and public copies of their config.json.
"""

from __future__ import annotations

from dataclasses import replace

from qwen3vl.config import ModelConfig, MoeConfig, RopeConfig, TextConfig, VisionConfig
from qwen3vl.errors import InvalidParams

_NATIVE_CONTEXT = 262144
_ROPE = RopeConfig(theta=5_000_000.0, mrope_section=(24, 20, 20))


def _text(
    hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, moe: MoeConfig | None = None
) -> TextConfig:
    return TextConfig(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        rms_norm_eps=1e-6,
        max_position_embeddings=_NATIVE_CONTEXT,
        rope=_ROPE,
        moe=moe,
    )


def _vision(out: int, large: bool) -> VisionConfig:
    return VisionConfig(
        depth=27 if large else 24,
        hidden_size=1152 if large else 1024,
        intermediate_size=4304 if large else 4096,
        num_heads=16,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=out,
        num_position_embeddings=48 * 48,
        deepstack_visual_indexes=(8, 16, 24) if large else (5, 11, 17),
    )


def _model(text: TextConfig, large_vision: bool, tied: bool) -> ModelConfig:
    return ModelConfig(
        text=text,
        vision=_vision(text.hidden_size, large_vision),
        tie_word_embeddings=tied,
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
    )


EDITIONS: dict[str, ModelConfig] = {
    "2b": _model(_text(2048, 28, 16, 8, 6144), large_vision=False, tied=True),
    "4b": _model(_text(2560, 36, 32, 8, 9728), large_vision=False, tied=True),
    "8b": _model(_text(4096, 36, 32, 8, 12288), large_vision=True, tied=False),
    "32b": _model(_text(5120, 64, 64, 8, 25600), large_vision=True, tied=False),
    "30b-a3b": _model(_text(2048, 48, 32, 4, 6144, MoeConfig(128, 8, 768)), large_vision=True, tied=False),
    "235b-a22b": _model(_text(4096, 94, 64, 4, 12288, MoeConfig(128, 8, 1536)), large_vision=True, tied=False),
}


def edition(
    name: str,
    *,
    text_layers: int | None = None,
    vision_layers: int | None = None,
    experts: int | None = None,
    shrink: bool = False,
) -> ModelConfig:
    """An edition's config, with fewer layers or experts if asked for, or shrunken in every width.

    With fewer vision layers, DeepStack's taps keep their number as far as there are blocks and are
    spread over them as in the original. Raises InvalidParams for what cannot be.
    """
    if name not in EDITIONS:
        raise InvalidParams(f"edition {name!r} is not known: choose from {', '.join(EDITIONS)}")
    config = EDITIONS[name]
    text, vision = (_shrunken(config) if shrink else config).text, (_shrunken(config) if shrink else config).vision
    if text_layers is not None:
        if text_layers < 1:
            raise InvalidParams(f"text_layers={text_layers}: at least 1 is needed")
        text = replace(text, num_hidden_layers=text_layers)
    if vision_layers is not None:
        vision = _with_depth(vision, vision_layers)
    if experts is not None:
        if text.moe is None:
            raise InvalidParams(f"experts={experts}: the {name} edition is dense")
        if experts < text.moe.num_experts_per_tok:
            raise InvalidParams(f"experts={experts}: each token goes to {text.moe.num_experts_per_tok}")
        text = replace(text, moe=replace(text.moe, num_experts=experts))
    if text.num_hidden_layers < len(vision.deepstack_visual_indexes):
        vision = replace(vision, deepstack_visual_indexes=vision.deepstack_visual_indexes[: text.num_hidden_layers])
    return replace(config, text=text, vision=vision)


def _with_depth(vision: VisionConfig, depth: int) -> VisionConfig:
    if depth < 1:
        raise InvalidParams(f"vision_layers={depth}: at least 1 is needed")
    count = min(len(vision.deepstack_visual_indexes), depth)
    indexes = tuple((k + 1) * depth // (count + 1) for k in range(count)) if depth > count else tuple(range(depth))
    return replace(vision, depth=depth, deepstack_visual_indexes=indexes)


def _shrunken(config: ModelConfig) -> ModelConfig:
    """Two to ten thousand times smaller, still with everything that can go wrong: GQA, head_dim other than
    hidden / heads, uneven MRoPE sections with a tail, three DeepStack taps, experts."""
    moe = config.text.moe
    text = replace(
        config.text,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        rope=replace(config.text.rope, mrope_section=(12, 10, 10)),
        moe=MoeConfig(8, 2, 40) if moe else None,
    )
    large = config.vision.hidden_size > 1024
    vision = replace(
        config.vision,
        depth=6,
        hidden_size=144 if large else 64,  # heads of 36 (72 halved) or 16
        intermediate_size=200,
        num_heads=4,
        out_hidden_size=96,
        deepstack_visual_indexes=(1, 2, 4),
    )
    return replace(config, text=text, vision=vision)
