"""`qwen3vl quantize` with a real (shrunken, random) checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.packed_layers import PackedLinear
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.quantized_folder import quantization_of
from tests import models
from tests.contract.cli_runner import Runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_quantize_writes_a_folder_that_loads(run: Runner, tmp_path: Path) -> None:
    done = run(
        "quantize", models.small_folder("4b"), "--to", "int8", "--vision", "none", "--out", tmp_path / "q", "--json"
    )
    document = json.loads(done.out)
    assert (done.code, document["folder"]) == (0, str(tmp_path / "q"))
    assert document["bytes"] < 0.8 * document["bytes_before"]  # the vision tower is as large as before
    assert quantization_of(tmp_path / "q") == Quantization(8, None)
    model = load_model(tmp_path / "q")
    assert isinstance(model.language_model.layers[0].self_attn.q_proj, PackedLinear)
    assert isinstance(model.visual.blocks[0].attn.qkv, torch.nn.Linear)


@pytest.mark.parametrize("options", [("--to", "int3"), ("--vision", "int4")])
def test_wrong_usage(run: Runner, options: tuple[str, str], tmp_path: Path) -> None:
    done = run("quantize", models.small_folder("4b"), "--out", tmp_path / "q", *options)
    assert done.code == 2 and options[1] in done.err and not (tmp_path / "q").exists()


def test_nothing_is_overwritten_or_quantised_twice(run: Runner, tmp_path: Path) -> None:
    assert run("quantize", models.small_folder("4b"), "--out", tmp_path / "q").code == 0
    again = run("quantize", models.small_folder("4b"), "--out", tmp_path / "q")
    assert again.code == 2 and "not an empty folder" in again.err
    twice = run("quantize", tmp_path / "q", "--out", tmp_path / "r")
    assert twice.code == 2 and "quantised already" in twice.err
