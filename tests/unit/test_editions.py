"""Sizes of the editions, and what may be cut from them."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.errors import CheckpointError, InvalidParams
from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import ASSETS, random_tensors, write_random_checkpoint

BILLIONS = {"2b": 2.13, "4b": 4.44, "8b": 8.77, "32b": 33.4, "30b-a3b": 31.1, "235b-a22b": 235.7}


def num_parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Qwen3VL(config).parameters())


@pytest.mark.parametrize("name", EDITIONS)
def test_number_of_parameters(name: str) -> None:
    assert num_parameters(EDITIONS[name]) / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)


def test_fewer_layers_and_experts() -> None:
    config = edition("30b-a3b", text_layers=3, vision_layers=9, experts=16)
    assert config.text.num_hidden_layers == 3 and config.vision.depth == 9
    assert config.text.moe is not None and config.text.moe.num_experts == 16
    assert config.text.hidden_size == EDITIONS["30b-a3b"].text.hidden_size
    assert len(config.vision.deepstack_visual_indexes) == 3


@pytest.mark.parametrize("depth", range(1, 30))
@pytest.mark.parametrize("text_layers", [1, 2, 3, 8])
def test_taps_fit_any_depth(depth: int, text_layers: int) -> None:
    config = edition("4b", vision_layers=depth, text_layers=text_layers)
    taps = config.vision.deepstack_visual_indexes
    assert len(taps) == min(3, depth, text_layers)
    assert list(taps) == sorted(set(taps)) and taps[0] >= 0 and taps[-1] < depth
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", EDITIONS)
def test_shrunken_keeps_the_traps(name: str) -> None:
    config = edition(name, shrink=True)
    assert num_parameters(config) < 40_000_000
    text = config.text
    assert text.head_dim != text.hidden_size // text.num_attention_heads
    assert text.num_key_value_heads < text.num_attention_heads
    assert (text.moe is None) == (EDITIONS[name].text.moe is None)
    assert config.tie_word_embeddings == EDITIONS[name].tie_word_embeddings
    assert len(config.vision.deepstack_visual_indexes) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "7b"}, "'7b' is not known: choose from 2b, 4b"),
        ({"name": "4b", "text_layers": 0}, "text_layers=0"),
        ({"name": "4b", "vision_layers": 0}, "vision_layers=0"),
        ({"name": "4b", "experts": 16}, "the 4b edition is dense"),
        ({"name": "30b-a3b", "experts": 7}, "each token goes to 8"),
    ],
)
def test_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        edition(**arguments)
    assert message in str(caught.value)


def test_random_weights_depend_on_seed_and_name_alone() -> None:
    short, long = edition("2b", shrink=True, text_layers=2), edition("2b", shrink=True)
    first = dict(random_tensors(short, 3, torch.float32))
    again = dict(random_tensors(long, 3, torch.float32))
    other = dict(random_tensors(short, 4, torch.float32))
    assert first.keys() < again.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]) and not torch.equal(tensor, other[name]), name
        assert tensor.std() > 0 and tensor.abs().min() < tensor.abs().max()
    assert len({float(t.flatten()[0]) for t in first.values()}) == len(first)


def test_random_folder_is_complete(tmp_path: Path) -> None:
    config = edition("2b", shrink=True, text_layers=1)
    seen: list[tuple[int, int]] = []
    folder = write_random_checkpoint(config, tmp_path / "new", progress=lambda *done: seen.append(done))
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in ASSETS.iterdir() if path.suffix == ".json"} <= names
    assert seen[-1][0] == seen[-1][1] == sum(prod(t.shape) for _, t in random_tensors(config, 0, torch.bfloat16))
    with pytest.raises(CheckpointError, match="is not empty"):
        write_random_checkpoint(config, folder)


@pytest.mark.parametrize("thinking", [False, True])
def test_template_of_the_kind_asked_for(thinking: bool, tmp_path: Path) -> None:
    folder = write_random_checkpoint(edition("2b", shrink=True, text_layers=1), tmp_path / "new", thinking=thinking)
    in_file = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == in_file
    assert in_file == (
        (ASSETS / "chat_template.thinking.jinja").read_text()
        if thinking
        else json.loads((ASSETS / "chat_template.json").read_text())["chat_template"]
    )
