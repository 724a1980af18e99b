"""Calibrated int4 weights: what is watched, how it is used, and that the error it is about falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import qwen3vl
from qwen3vl.errors import DataError, InvalidParams
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.calibration import LEAST, Calibration, Mean, watching
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.packed_layers import PackedMatrix
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.quantized_folder import quantization_of
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models
from tests.contract.cli_runner import Runner
from tests.fixtures.pictures import scene


def read(model: Qwen3VL, num_tokens: int = 60) -> torch.Tensor:
    ids = torch.arange(7, 7 + num_tokens) % model.config.text.vocab_size
    with torch.inference_mode():
        return model(ids, torch.arange(num_tokens).expand(3, -1), ForwardContext.pack([num_tokens]))


def test_mean_by_a_worked_example() -> None:
    mean = Mean(torch.zeros(3))
    mean.add(torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]]))  # squares 1 and 9, 4 and 4, 0 and 0
    assert mean.importance_K.tolist() == pytest.approx([5.0, 4.0, LEAST * 3.0])


@pytest.mark.parametrize("edition", models.EDITIONS)
def test_everything_that_is_packed_is_watched(edition: str) -> None:
    folder = models.small_folder(edition)
    model = load_model(folder)
    before = read(model)
    with watching(model) as means:
        assert torch.equal(read(model), before)
    seen = {name: mean.count for name, mean in means.items()}
    assert torch.equal(read(model), before) and seen == {name: mean.count for name, mean in means.items()}
    assert means["language_model.layers.0.self_attn.q_proj"].count == 60
    calibration = Calibration({name: mean.importance_K for name, mean in means.items()})
    packed = load_model(folder, quantize=Quantization(4), calibration=calibration)
    matrices = [m for n, m in packed.named_modules() if isinstance(m, PackedMatrix) and not n.startswith("visual")]
    looked_up = 0 if model.config.tie_word_embeddings else 1
    assert len(calibration.errors()) == len(matrices) - looked_up
    errors = calibration.errors()
    assert all(0 < error.calibrated <= error.plain < 0.2 for error in errors), errors
    assert sum(error.calibrated for error in errors) < 0.98 * sum(error.plain for error in errors)


def test_the_error_of_a_product_falls_as_is_said() -> None:
    """One layer whose inputs differ much in size: the measured error is the estimated one."""
    folder = models.small_folder("4b")
    model = load_model(folder)
    scale = torch.logspace(-2, 1, model.config.text.hidden_size)
    scale = scale[torch.randperm(len(scale), generator=torch.Generator().manual_seed(0))]
    inputs: list[torch.Tensor] = []
    layer = model.language_model.layers[0]
    layer.input_layernorm.weight.data.copy_(scale)
    layer.self_attn.q_proj.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with watching(model) as means:
        read(model, 200)
    calibration = Calibration({name: mean.importance_K for name, mean in means.items()})
    name, exact = "language_model.layers.0.self_attn.q_proj", inputs[0] @ layer.self_attn.q_proj.weight.T

    def error(calibrated: Calibration | None) -> float:
        packed = load_model(folder, quantize=Quantization(4), calibration=calibrated).get_submodule(name)
        weight = packed.matrix.rows(torch.arange(packed.n))[:, : inputs[0].shape[1]]
        return float((inputs[0] @ weight.T - exact).norm() / exact.norm())

    calibrated, plainly = error(calibration), error(None)
    said = next(e for e in calibration.errors() if e.name == name)
    assert calibrated < 0.9 * plainly
    assert said.calibrated == pytest.approx(calibrated, rel=0.2) and said.plain == pytest.approx(plainly, rel=0.2)


def test_of_another_model() -> None:
    with pytest.raises(InvalidParams, match="was it made with this checkpoint"):
        load_model(models.small_folder("4b"), quantize=Quantization(4), calibration=Calibration({}))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    scene(64, 48).save(folder / "a.png")
    line = {"image": "a.png", "conversations": [{"from": "human", "value": "<image>What?"}]}
    line["conversations"].append({"from": "gpt", "value": "A scene."})  # type: ignore[attr-defined]
    (folder / "data.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "bad.jsonl").write_text("{}\n")
    return folder


def test_from_pictures_and_conversations(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl.quantized.ANSWER_TOKENS", 3)
    told: list[str] = []
    done = qwen3vl.quantize(
        models.folder("4b"),
        tmp_path / "q",
        calibrate=[material / "a.png", material / "data.jsonl"],
        progress=lambda what, *_: told.append(what),
    )
    assert list(dict.fromkeys(told)) == ["Loading weights", "Calibrating", "Quantising", "Writing"]
    assert told.count("Calibrating") == 2
    assert done.num_bytes < done.num_bytes_before / 5 and quantization_of(done.folder) == Quantization(4)
    assert {e.name.rpartition(".")[2] for e in done.errors} >= {"q_proj", "o_proj", "gate_up", "down", "embed_tokens"}
    assert sum(e.calibrated for e in done.errors) < sum(e.plain for e in done.errors)


def test_on_the_command_line(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    done = run("quantize", models.folder("4b"), "--out", tmp_path / "q", "--calibrate", material / "data.jsonl")
    assert done.code == 0 and "instead of" in done.out and "gate_up" in done.out, done
    for given, word in (
        (("--to", "int8", "--calibrate", material / "a.png"), "int4"),
        (("--calibrate", "absent.png"), "absent.png: no such file"),
    ):
        refused = run("quantize", models.folder("4b"), "--out", tmp_path / "r", *given)
        assert refused.code == 2 and word in refused.err and not (tmp_path / "r").exists()
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        qwen3vl.quantize(models.folder("4b"), tmp_path / "r", calibrate=[material / "bad.jsonl"])
