"""The architecture of a checkpoint, read strictly from its config.json.

Nothing is assumed: a size that the file lacks is an error, and so is a key that this module neither
uses nor lists as ignored with the reason. Official files carry rope_theta and rope_scaling; folders
saved by transformers 5 carry rope_parameters instead. Both are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3vl.errors import ConfigError

MODEL_TYPES = ("qwen3_vl", "qwen3_vl_moe")
VISION_ROPE_THETA = 10000.0  # not in the official files; the value of the released code

# Keys that do not change what the model computes, with the reason why each is ignored.
_IGNORED_TOP = {
    "architectures": "follows from model_type",
    "transformers_version": "who wrote the file",
    "dtype": "read by the loader",
    "torch_dtype": "read by the loader",
    "use_cache": "a run-time choice",
    "bos_token_id": "nothing is prepended; end tokens come from generation_config.json",
    "eos_token_id": "end tokens come from generation_config.json",
    "pad_token_id": "sequences are not padded inside the model",
    "initializer_range": "training from scratch only",
    "quantization_config": "read by the loader, which refuses what it cannot load",
}
_IGNORED_TEXT = {
    **_IGNORED_TOP,
    "model_type": "follows from the top level's",
    "attention_dropout": "must be 0, checked",
    "hidden_act": "must be silu, checked",
    "attention_bias": "must be false, checked",
    "output_router_logits": "a run-time choice",
    "router_aux_loss_coef": "training only",
    "sliding_window": "must be null, checked",
    "use_sliding_window": "must be false, checked",
    "max_window_layers": "without a sliding window it means nothing",
    "norm_topk_prob": "must be true, checked",
    "layer_types": "all layers attend fully, checked",
    "qkv_bias": "must be false, checked",
}
_IGNORED_VISION = {
    **_IGNORED_TOP,
    "model_type": "follows from the top level's",
    "hidden_act": "must be gelu_pytorch_tanh, checked",
    "in_channels": "must be 3, checked",
}


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions of the text decoder.

    Attributes:
        theta: base of the frequencies.
        mrope_section: how many frequencies belong to time, height and width (interleaved).
        factor: static YaRN scaling; 1 means none.
        original_max_positions: what the model was trained on, before YaRN.
        attention_factor: multiplies cos and sin; None is YaRN's own 0.1 ln(factor) + 1.
        beta_fast, beta_slow, truncate: YaRN's ramp.
    """

    theta: float
    mrope_section: tuple[int, int, int]
    factor: float = 1.0
    original_max_positions: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    @property
    def yarn(self) -> bool:
        return self.original_max_positions is not None


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """Mixture of experts. `dense_layers` keep an ordinary MLP (no release has any)."""

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    dense_layers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The decoder. `head_dim` is its own number, not hidden_size / num_attention_heads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    moe: MoeConfig | None = None

    @property
    def max_positions(self) -> int:
        """Positions up to here are within what rotary (with YaRN, if any) was made for."""
        if self.rope.original_max_positions is None:
            return self.max_position_embeddings
        return int(self.rope.factor * self.rope.original_max_positions)


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower. `deepstack_visual_indexes[k]` is the block whose output DeepStack merger k takes."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int
    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]
    rope_theta: float = VISION_ROPE_THETA
    in_channels: int = 3

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_values(self) -> int:
        """Values of one patch: channels x frames x side x side."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A whole Qwen3-VL. Token ids are those of the checkpoint's tokenizer."""

    text: TextConfig
    vision: VisionConfig
    tie_word_embeddings: bool
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int

    @property
    def model_type(self) -> str:
        return "qwen3_vl_moe" if self.text.moe else "qwen3_vl"

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read folder/config.json. Raises ConfigError naming the file and the key."""
        path = Path(folder) / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ConfigError(f"{path}: is not valid JSON ({error})") from error
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        if not isinstance(values, Mapping):
            raise ConfigError(f"is not a JSON object but {type(values).__name__}")
        top = _Reader(values, "config")
        model_type = top.get("model_type", str)
        if model_type not in MODEL_TYPES:
            raise ConfigError(f"model_type {model_type!r} is not a Qwen3-VL ({' or '.join(MODEL_TYPES)})")
        text_reader = _Reader(top.get("text_config", dict), "text_config")
        text = _read_text(text_reader, is_moe=model_type == "qwen3_vl_moe")
        vision = _read_vision(_Reader(top.get("vision_config", dict), "vision_config"))
        # The top level decides, as in transformers; text_config's own copy is the same in every release.
        tied = top.get("tie_word_embeddings", bool, False)
        text_reader.values.pop("tie_word_embeddings", None)
        text_reader.finish(_IGNORED_TEXT)
        ids = {f"{name}_token_id": top.get(f"{name}_token_id", int) for name in _TOKEN_NAMES}
        top.finish(_IGNORED_TOP)
        if vision.out_hidden_size != text.hidden_size:
            raise ConfigError(
                f"vision_config.out_hidden_size {vision.out_hidden_size} is not "
                f"text_config.hidden_size {text.hidden_size}"
            )
        return cls(text=text, vision=vision, tie_word_embeddings=tied, **ids)

    def to_dict(self) -> dict[str, Any]:
        """config.json in the form of the official files."""
        text, vision, rope, moe = self.text, self.vision, self.text.rope, self.text.moe
        scaling: dict[str, Any] = {"mrope_interleaved": True, "mrope_section": list(rope.mrope_section)}
        if rope.original_max_positions is None:
            scaling["rope_type"] = "default"
        else:
            scaling |= {"rope_type": "yarn", "factor": rope.factor, "beta_fast": rope.beta_fast}
            scaling |= {"beta_slow": rope.beta_slow, "truncate": rope.truncate}
            scaling |= {"original_max_position_embeddings": rope.original_max_positions}
            scaling |= {"attention_factor": rope.attention_factor} if rope.attention_factor is not None else {}
        experts: dict[str, Any] = {}
        if moe is not None:
            experts = {"num_experts": moe.num_experts, "num_experts_per_tok": moe.num_experts_per_tok}
            experts |= {"moe_intermediate_size": moe.intermediate_size, "norm_topk_prob": True}
            experts |= {"decoder_sparse_step": 1, "mlp_only_layers": sorted(moe.dense_layers)}
        return {
            "architectures": [_ARCHITECTURES[self.model_type]],
            "model_type": self.model_type,
            "tie_word_embeddings": self.tie_word_embeddings,
            **{f"{name}_token_id": getattr(self, f"{name}_token_id") for name in _TOKEN_NAMES},
            "text_config": {
                "model_type": f"{self.model_type}_text",
                **{name: getattr(text, name) for name in _TEXT_SIZES},
                **experts,
                "attention_bias": False,
                "attention_dropout": 0.0,
                "hidden_act": "silu",
                "rms_norm_eps": text.rms_norm_eps,
                "rope_scaling": scaling,
                "rope_theta": rope.theta,
                "tie_word_embeddings": self.tie_word_embeddings,
            },
            "vision_config": {
                "model_type": self.model_type,
                **{name: getattr(vision, name) for name in _VISION_SIZES},
                "deepstack_visual_indexes": list(vision.deepstack_visual_indexes),
                "hidden_act": "gelu_pytorch_tanh",
                "in_channels": vision.in_channels,
                "rope_parameters": {"rope_theta": vision.rope_theta, "rope_type": "axial"},
            },
        }


_ARCHITECTURES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
}
_TOKEN_NAMES = ("image", "video", "vision_start", "vision_end")


def _read_text(reader: _Reader, is_moe: bool) -> TextConfig:
    reader.require("hidden_act", "silu")
    for key in ("attention_bias", "use_sliding_window", "qkv_bias"):
        reader.require(key, False)
    reader.require("attention_dropout", 0)
    reader.require("sliding_window", None)
    if any(kind != "full_attention" for kind in reader.values.get("layer_types") or ()):
        raise ConfigError("text_config.layer_types: only full_attention is known")
    sizes = {name: reader.get(name, int) for name in _TEXT_SIZES}
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        raise ConfigError(
            f"num_attention_heads {sizes['num_attention_heads']} is not a multiple of "
            f"num_key_value_heads {sizes['num_key_value_heads']}"
        )
    return TextConfig(
        **sizes,
        rms_norm_eps=reader.get("rms_norm_eps", float),
        rope=_read_rope(reader),
        moe=_read_moe(reader, sizes["num_hidden_layers"]) if is_moe else None,
    )


_TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)


def _read_rope(reader: _Reader) -> RopeConfig:
    if "rope_parameters" in reader.values:
        rope = _Reader(reader.get("rope_parameters", dict), "text_config.rope_parameters")
        theta = rope.get("rope_theta", float)
        reader.values.pop("rope_theta", None)
        reader.values.pop("rope_scaling", None)
    else:
        rope = _Reader(reader.get("rope_scaling", dict), "text_config.rope_scaling")
        theta = reader.get("rope_theta", float)
        rope.values.pop("rope_theta", None)
    rope.require("mrope_interleaved", True)
    rope_type = rope.get("rope_type", str, rope.values.pop("type", "default"))
    rope.values.pop("type", None)
    section = tuple(rope.get("mrope_section", list))
    if len(section) != 3 or not all(isinstance(n, int) and n >= 0 for n in section):
        raise ConfigError(f"{rope.where}.mrope_section must be three whole numbers, not {section}")
    yarn: dict[str, Any] = {}
    if rope_type == "yarn":
        yarn["factor"] = rope.get("factor", float)
        yarn["original_max_positions"] = rope.get("original_max_position_embeddings", int)
        yarn["attention_factor"] = rope.get("attention_factor", float, None)
        yarn["beta_fast"] = rope.get("beta_fast", float, 32.0)
        yarn["beta_slow"] = rope.get("beta_slow", float, 1.0)
        yarn["truncate"] = rope.get("truncate", bool, True)
    elif rope_type not in ("default", "mrope"):
        raise ConfigError(f"{rope.where}.rope_type {rope_type!r} is not known (default or yarn)")
    rope.finish({"mrope_interleaved": "must be true, checked"})
    return RopeConfig(theta=theta, mrope_section=section, **yarn)


def _read_moe(reader: _Reader, num_layers: int) -> MoeConfig:
    reader.require("norm_topk_prob", True)
    num_experts = reader.get("num_local_experts" if "num_local_experts" in reader.values else "num_experts", int)
    reader.values.pop("num_experts", None)
    step = reader.get("decoder_sparse_step", int, 1)
    mlp_only = set(reader.get("mlp_only_layers", list, None) or ())
    dense_layers = (i for i in range(num_layers) if i in mlp_only or (i + 1) % max(step, 1))
    return MoeConfig(
        num_experts=num_experts,
        num_experts_per_tok=reader.get("num_experts_per_tok", int),
        intermediate_size=reader.get("moe_intermediate_size", int),
        dense_layers=frozenset(dense_layers),
    )


def _read_vision(reader: _Reader) -> VisionConfig:
    reader.require("hidden_act", "gelu_pytorch_tanh")
    reader.require("in_channels", 3)
    rope = _Reader(reader.get("rope_parameters", dict, {}), "vision_config.rope_parameters")
    rope.require("rope_type", "axial")
    theta = rope.get("rope_theta", float, VISION_ROPE_THETA)
    rope.finish({"rope_type": "must be axial, checked"})
    sizes = {name: reader.get(name, int) for name in _VISION_SIZES}
    indexes = tuple(reader.get("deepstack_visual_indexes", list))
    if len(set(indexes)) != len(indexes) or any(not 0 <= i < sizes["depth"] for i in indexes):
        raise ConfigError(f"deepstack_visual_indexes {indexes} must be distinct blocks below depth {sizes['depth']}")
    if int(sizes["num_position_embeddings"] ** 0.5) ** 2 != sizes["num_position_embeddings"]:
        raise ConfigError(f"num_position_embeddings {sizes['num_position_embeddings']} is not a square")
    reader.finish(_IGNORED_VISION)
    return VisionConfig(**sizes, deepstack_visual_indexes=indexes, rope_theta=theta)


_VISION_SIZES = (
    "depth",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
    "out_hidden_size",
    "num_position_embeddings",
)

_REQUIRED = object()


class _Reader:
    """Takes keys out of a JSON object one by one, so that what is left over can be named."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = dict(values)
        self.where = where

    def get(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        value = self.values.pop(key, default)
        if value is _REQUIRED:
            raise ConfigError(f"{self.where}.{key} is missing")
        if value is default:
            return value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.where}.{key} must be {kind.__name__}, not {value!r}")
        if isinstance(value, int) and value < 0:
            raise ConfigError(f"{self.where}.{key} is negative: {value}")
        return value

    def require(self, key: str, expected: Any) -> None:
        """The released models have one value here; another would need code that does not exist."""
        value = self.values.get(key, expected)
        if value != expected:
            raise ConfigError(f"{self.where}.{key} is {value!r}; only {expected!r} is known")

    def finish(self, ignored: Mapping[str, str]) -> None:
        unknown = sorted(key for key in self.values if key not in ignored and not key.startswith("_"))
        if unknown:
            raise ConfigError(f"{self.where} has keys that are not known: {', '.join(unknown)}")
