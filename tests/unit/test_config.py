"""config.json is read strictly: each key is used, or ignored with a reason, or refused by name."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.config import ModelConfig, MoeConfig, RopeConfig
from qwen3vl.errors import ConfigError
from qwen3vl.model.editions import EDITIONS

DENSE, SPARSE = EDITIONS["4b"], EDITIONS["30b-a3b"]
YARN = {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 262144}


def values(config: ModelConfig = DENSE, **changes: dict[str, Any]) -> dict[str, Any]:
    """values(text_config={"head_dim": 64}); ... as a value removes the key; "top" is the top level."""
    out = copy.deepcopy(config.to_dict())
    for section, entries in changes.items():
        part = out if section == "top" else out[section]
        for key, value in entries.items():
            if value is ...:
                del part[key]
            else:
                part[key] = value
    return out


def rope(**changes: Any) -> dict[str, Any]:
    """text_config with an altered rope_scaling."""
    scaling = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, **changes}
    return {"rope_scaling": {key: value for key, value in scaling.items() if value is not ...}}


@pytest.mark.parametrize("name", EDITIONS)
def test_round_trip(name: str) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(EDITIONS[name].to_dict()))) == EDITIONS[name]


def test_round_trip_of_what_no_edition_has() -> None:
    text = replace(
        SPARSE.text,
        moe=MoeConfig(6, 3, 40, dense_layers=frozenset({0, 7})),
        rope=RopeConfig(1e4, (8, 4, 4), 2.0, 4096, 0.8, 20.0, 2.0, False),
    )
    vision = replace(SPARSE.vision, deepstack_visual_indexes=(9, 2), rope_theta=500.0)
    config = replace(SPARSE, text=text, vision=vision, tie_word_embeddings=True)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


REQUIRED = [
    *(("top", key) for key in ("model_type", "text_config", "vision_config", "image_token_id", "vision_end_token_id")),
    *(("text_config", key) for key in ("hidden_size", "head_dim", "num_hidden_layers", "num_key_value_heads")),
    *(("text_config", key) for key in ("rms_norm_eps", "rope_theta", "rope_scaling", "vocab_size")),
    *(("text_config", key) for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")),
    *(("vision_config", key) for key in ("depth", "hidden_size", "out_hidden_size", "num_position_embeddings")),
    *(("vision_config", key) for key in ("deepstack_visual_indexes", "spatial_merge_size", "patch_size")),
]


@pytest.mark.parametrize(("section", "key"), REQUIRED)
def test_nothing_is_assumed(section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        ModelConfig.from_dict(values(SPARSE, **{section: {key: ...}}))


WRONG = [
    ("model_type 'qwen2_5_vl' is not a Qwen3-VL", {"top": {"model_type": "qwen2_5_vl"}}),
    ("config.model_type must be str", {"top": {"model_type": 3}}),
    ("not known: shared_expert_size", {"text_config": {"shared_expert_size": 3}}),
    ("not known: window_size", {"vision_config": {"window_size": 112}}),
    ("not known: audio_config", {"top": {"audio_config": {}}}),
    ("not known: low_freq_factor", {"text_config": rope(low_freq_factor=1.0)}),
    ("hidden_size must be int, not '2560'", {"text_config": {"hidden_size": "2560"}}),
    ("hidden_size must be int, not True", {"text_config": {"hidden_size": True}}),
    ("hidden_size must be int, not None", {"text_config": {"hidden_size": None}}),
    ("hidden_size is negative", {"text_config": {"hidden_size": -1}}),
    ("text_config must be dict", {"top": {"text_config": []}}),
    ("rms_norm_eps must be float", {"text_config": {"rms_norm_eps": "1e-6"}}),
    ("hidden_act is 'gelu'; only 'silu'", {"text_config": {"hidden_act": "gelu"}}),
    ("hidden_act is 'silu'; only 'gelu_pytorch_tanh'", {"vision_config": {"hidden_act": "silu"}}),
    ("attention_bias is True", {"text_config": {"attention_bias": True}}),
    ("attention_dropout is 0.1", {"text_config": {"attention_dropout": 0.1}}),
    ("sliding_window is 4096", {"text_config": {"sliding_window": 4096}}),
    ("use_sliding_window is True", {"text_config": {"use_sliding_window": True}}),
    ("only full_attention", {"text_config": {"layer_types": ["sliding_attention"]}}),
    ("num_attention_heads 32 is not a multiple of num_key_value_heads 5", {"text_config": {"num_key_value_heads": 5}}),
    ("in_channels is 1", {"vision_config": {"in_channels": 1}}),
    ("must be distinct blocks below depth 24", {"vision_config": {"deepstack_visual_indexes": [5, 11, 24]}}),
    ("must be distinct blocks", {"vision_config": {"deepstack_visual_indexes": [5, 5]}}),
    ("num_position_embeddings 2303 is not a square", {"vision_config": {"num_position_embeddings": 2303}}),
    ("out_hidden_size 2048 is not text_config.hidden_size 2560", {"vision_config": {"out_hidden_size": 2048}}),
    ("rope_type 'llama3' is not known", {"text_config": rope(rope_type="llama3")}),
    ("mrope_interleaved is False", {"text_config": rope(mrope_interleaved=False)}),
    ("mrope_section must be three whole numbers", {"text_config": rope(mrope_section=[32, 32])}),
    ("mrope_section is missing", {"text_config": rope(mrope_section=...)}),
    ("rope_parameters.rope_type is 'yarn'", {"vision_config": {"rope_parameters": {"rope_type": "yarn"}}}),
    ("rope_parameters has keys that are not known: base", {"vision_config": {"rope_parameters": {"base": 1}}}),
    ("factor is missing", {"text_config": rope(**{**YARN, "factor": ...})}),
    ("original_max_position_embeddings is missing", {"text_config": rope(rope_type="yarn", factor=2.0)}),
]


@pytest.mark.parametrize(("message", "changes"), WRONG, ids=[message for message, _ in WRONG])
def test_refused_by_name(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values(**changes))
    assert message in str(caught.value)


def test_experts_that_are_not_renormalised_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm_topk_prob is False"):
        ModelConfig.from_dict(values(SPARSE, text_config={"norm_topk_prob": False}))


def test_head_size_is_not_derived() -> None:
    config = ModelConfig.from_dict(values(text_config={"head_dim": 80}))
    assert config.text.head_dim == 80 != config.text.hidden_size // config.text.num_attention_heads + 1


def test_yarn() -> None:
    plain, scaled = ModelConfig.from_dict(values()), ModelConfig.from_dict(values(text_config=rope(**YARN)))
    assert (plain.text.rope.yarn, plain.text.max_positions) == (False, 262144)
    assert (scaled.text.rope.yarn, scaled.text.max_positions) == (True, 786432)


def test_new_and_old_names_of_the_rope_mean_the_same() -> None:
    old = values(text_config=rope(**YARN))
    new = copy.deepcopy(old)
    scaling = new["text_config"].pop("rope_scaling")
    new["text_config"]["rope_parameters"] = {**scaling, "rope_theta": new["text_config"].pop("rope_theta")}
    assert ModelConfig.from_dict(new) == ModelConfig.from_dict(old)


@pytest.mark.parametrize(
    ("keys", "dense"),
    [
        ({"decoder_sparse_step": 1, "mlp_only_layers": []}, set()),
        ({"decoder_sparse_step": ..., "mlp_only_layers": ...}, set()),
        ({"mlp_only_layers": [0, 3]}, {0, 3}),
        ({"decoder_sparse_step": 2}, set(range(0, 48, 2))),  # layers 1, 3, ... are sparse
    ],
)
def test_layers_without_experts(keys: dict[str, Any], dense: set[int]) -> None:
    config = ModelConfig.from_dict(values(SPARSE, text_config=keys))
    assert config.text.moe is not None and config.text.moe.dense_layers == dense


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"qwen3_vl"', "[1]"])
def test_a_file_that_is_no_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_folder(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read \(No such file"):
        ModelConfig.from_folder(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_folder(tmp_path)
