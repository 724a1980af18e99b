"""Which tensor goes to which device; the rules need no GPU."""

from __future__ import annotations

import pytest
import torch

from qwen3vl.errors import InvalidParams
from qwen3vl.model import devices
from qwen3vl.model.devices import parse_device, place, spread
from qwen3vl.model.editions import edition
from qwen3vl.model.qwen3vl import Qwen3VL

CONFIG = edition("8b", shrink=True)
LAYER = "language_model.layers.2.mlp.up_proj.weight"


def sizes() -> tuple[int, int]:
    """-> (bytes of one decoder layer, bytes of all the rest) in bfloat16."""
    with torch.device("meta"):
        model = Qwen3VL(CONFIG)
    layer = sum(p.numel() for p in model.language_model.layers[0].parameters()) * 2
    return layer, sum(p.numel() for p in model.parameters()) * 2 - layer * len(model.language_model.layers)


def layers_of(free: list[float]) -> list[str]:
    """Where the 4 layers go when the GPUs have room for so many layers, the first beside all the rest."""
    layer, rest = sizes()
    room = [round((n * layer + (rest if i == 0 else 0) + 100) / devices._RESERVE) for i, n in enumerate(free)]
    table = spread(CONFIG, torch.bfloat16, room)
    assert table[""] == "cuda:0"
    return [table[f"language_model.layers.{i}"] for i in range(4)]


def test_spread() -> None:
    assert layers_of([4]) == ["cuda:0"] * 4
    assert layers_of([2, 2]) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert layers_of([0, 1, 3]) == ["cuda:1", "cuda:2", "cuda:2", "cuda:2"]
    assert layers_of([1, 2]) == ["cuda:0", "cuda:1", "cuda:1", "cpu"]
    assert layers_of([1, 0.5, 9]) == ["cuda:0", "cuda:2", "cuda:2", "cuda:2"]


def test_spread_without_room_or_gpus() -> None:
    layer, rest = sizes()
    assert spread(CONFIG, torch.bfloat16, []) == {"": "cpu"}
    assert spread(CONFIG, torch.bfloat16, [rest, 100 * layer]) == {"": "cpu"}  # of `rest` only 0.8 may be taken


def test_float32_takes_twice_the_room() -> None:
    layer, rest = sizes()
    free = [round((4 * layer + rest) / devices._RESERVE) + 100]
    assert spread(CONFIG, torch.bfloat16, free)["language_model.layers.3"] == "cuda:0"
    assert spread(CONFIG, torch.float32, free) == {"": "cpu"}


def test_the_longest_prefix_decides() -> None:
    table = {
        "": "cpu",
        "language_model": "meta",
        "language_model.layers.2": "cpu",
        "language_model.layers.2.mlp": "meta",
    }
    device_of = place(CONFIG, torch.bfloat16, None, table)
    assert device_of("visual.pos_embed.weight").type == "cpu"
    assert device_of("language_model.layers.1.input_layernorm.weight").type == "meta"
    assert device_of("language_model.layers.2.input_layernorm.weight").type == "cpu"
    assert device_of(LAYER).type == "meta"
    assert device_of("language_model.layers.20.mlp.up_proj.weight").type == "meta"  # 2 is no prefix of 20


def test_names_of_the_files_serve_too() -> None:
    device_of = place(
        CONFIG, torch.bfloat16, None, {"model.language_model": "meta", "model.visual": "cpu", "lm_head": "cpu"}
    )
    assert device_of(LAYER).type == "meta" and device_of("visual.pos_embed.weight").type == "cpu"


def test_a_map_with_a_gap() -> None:
    device_of = place(CONFIG, torch.bfloat16, None, {"visual": "cpu"})
    with pytest.raises(InvalidParams, match=rf"no entry for {LAYER}"):
        device_of(LAYER)


def test_one_device_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(CONFIG, torch.bfloat16, None, None)(LAYER).type == "cpu"
    assert place(CONFIG, torch.bfloat16, torch.device("meta"), None)(LAYER).type == "meta"
    assert place(CONFIG, torch.bfloat16, None, "meta")(LAYER).type == "meta"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place(CONFIG, torch.bfloat16, "auto", None)(LAYER).type == "cpu"
    assert place(CONFIG, torch.bfloat16, None, "auto")(LAYER).type == "cpu"


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidParams, match="'gpu' is not known"):
        parse_device("gpu")
    with pytest.raises(InvalidParams, match="no CUDA device"):
        parse_device("cuda:1")
    with pytest.raises(InvalidParams, match="exclude each other"):
        place(CONFIG, torch.bfloat16, "cpu", "auto")
