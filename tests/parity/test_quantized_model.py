"""Quantised models: the right layers, the right weights, small errors, folders that are mapped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qwen3vl.bench.measure import status_bytes
from qwen3vl.errors import UnsupportedOption, WeightsError
from qwen3vl.kernels.cpu import plain
from qwen3vl.model import packed_layers
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.packed_layers import PackedMatrix, PackedSwiGLU
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.quantized_folder import save_quantized
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models

NAMES = ("int8", "int4")


def logits(model: Qwen3VL) -> Tensor:
    ids = torch.arange(7, 67) % model.config.text.vocab_size
    with torch.inference_mode():
        return model(ids, torch.arange(60).expand(3, -1), ForwardContext.pack([60]))


def unpacked(matrix: PackedMatrix) -> Tensor:
    return plain.unpack(matrix.values, matrix.bits, matrix.n, matrix.k)


@pytest.mark.parametrize("edition", models.EDITIONS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_stay_near(edition: str, name: str) -> None:
    """Random weights of tiny models are the worst case: nearly flat logits, wide errors. Bounds hold with room."""
    folder = models.small_folder(edition)
    exact, quantized = logits(load_model(folder)), logits(load_model(folder, quantize=Quantization.named(name)))
    divergence = nn.functional.kl_div(
        quantized.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none"
    )
    assert divergence.sum(-1).mean() < {"int8": 0.05, "int4": 0.5}[name]
    assert quantized.dtype == torch.float32 and torch.isfinite(quantized).all()


def test_vision_tower_stays_near() -> None:
    folder = models.small_folder("4b")
    exact, quantized = load_model(folder), load_model(folder, quantize=Quantization(4))
    plainly = load_model(folder, quantize=Quantization(4, vision_bits=None))
    patches = torch.randn(96, exact.config.vision.patch_values, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, near, same = (m.encode_visuals(patches, [(8, 12)]).embeddings_MD for m in (exact, quantized, plainly))
    assert 0 < (near - want).norm() / want.norm() < 0.05
    assert torch.equal(same, want)


def test_long_inputs_of_an_mlp_go_through_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less memory, the same bits."""
    model = load_model(models.small_folder("4b"), quantize=Quantization(4))
    widths = (model.config.vision.hidden_size, model.config.text.hidden_size)
    mlps = (model.visual.blocks[0].mlp, model.language_model.layers[0].mlp)
    inputs = [torch.randn(700, width, generator=torch.Generator().manual_seed(1)) for width in widths]
    with torch.inference_mode():
        in_runs = [mlp(x) for mlp, x in zip(mlps, inputs, strict=True)]
        monkeypatch.setattr(packed_layers, "_RUN", 1000)
        at_once = [mlp(x) for mlp, x in zip(mlps, inputs, strict=True)]
    for mine, expected in zip(in_runs, at_once, strict=True):
        assert torch.equal(mine, expected)


def test_every_weight_is_in_its_place() -> None:
    """Each packed matrix, dequantised, is the checkpoint's tensor up to rounding."""
    for edition in models.EDITIONS:
        folder = models.small_folder(edition)
        exact, packed = load_model(folder), load_model(folder, quantize=Quantization(8))
        linears = {name: module for name, module in exact.named_modules() if isinstance(module, nn.Linear)}
        compared = 0
        for name, module in packed.named_modules():
            if isinstance(module, PackedMatrix) and name in linears:
                want, got = linears[name].weight, unpacked(module)[:, : linears[name].in_features]
                assert (got - want).norm() / want.norm() < 0.01, name
                compared += 1
            if isinstance(module, PackedSwiGLU) and ".experts." not in name:
                halves = unpacked(module.gate_up).unflatten(0, (-1, 2, 16)).transpose(0, 1).flatten(1, 2)
                mlp = exact.get_submodule(name)
                for half, layer in zip(halves, (mlp.gate_proj, mlp.up_proj), strict=True):
                    rows, columns = layer.weight.shape
                    assert (half[:rows, :columns] - layer.weight).norm() / layer.weight.norm() < 0.01, name
                compared += 2
        assert compared > 20, edition


@pytest.mark.parametrize("edition", models.EDITIONS)
def test_folder_is_mapped_and_the_same(edition: str, tmp_path: Path) -> None:
    source, how = models.small_folder(edition), Quantization(4)
    model = load_model(source, quantize=how)
    save_quantized(model, how, source, tmp_path / "q")
    again = load_model(tmp_path / "q")
    assert torch.equal(logits(again), logits(model))
    before = (tmp_path / "q/model.safetensors").read_bytes()
    next(again.parameters()).data.add_(1)
    assert (tmp_path / "q/model.safetensors").read_bytes() == before
    assert (tmp_path / "q/tokenizer.json").exists() == (source / "tokenizer.json").exists()


def test_quantised_folders_are_checked(tmp_path: Path) -> None:
    source, how = models.small_folder("4b"), Quantization(8)
    save_quantized(load_model(source, quantize=how), how, source, tmp_path / "q")
    with pytest.raises(UnsupportedOption, match="quantised already"):
        load_model(tmp_path / "q", quantize=Quantization(4))
    config = json.loads((tmp_path / "q/config.json").read_text())
    for change, error in (({"quant_method": "awq"}, UnsupportedOption), ({"version": 99}, WeightsError)):
        shutil.copytree(tmp_path / "q", tmp_path / str(change))
        altered = config | {"quantization_config": config["quantization_config"] | change}
        (tmp_path / str(change) / "config.json").write_text(json.dumps(altered))
        with pytest.raises(error):
            load_model(tmp_path / str(change))
    altered = config | {"quantization_config": config["quantization_config"] | {"bits": 4}}
    (tmp_path / "q/config.json").write_text(json.dumps(altered))
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(tmp_path / "q")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
def test_quantising_streams(tmp_path: Path) -> None:
    """The peak is near the packed size, though the checkpoint is seven times as large."""
    from qwen3vl.model.checkpoint import save_tensors
    from tests.parity.test_checkpoint_memory import PROGRAM, config, ones

    big = config(None)
    save_tensors(big, ones(big, torch.bfloat16), tmp_path)
    program = PROGRAM.replace("dtype=sys.argv[2])", 'quantize=Quantization.named("int4"))').replace(
        "import load_model", "import load_model\nfrom qwen3vl.model.quantize import Quantization"
    )
    out = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True).stdout
    peak, weights = map(int, out.split())
    assert peak < 1.15 * weights + 48 * 2**20, (peak, weights)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmRSS is Linux's")
def test_matrices_take_no_memory_before_they_are_filled() -> None:
    """A mapped folder puts others in their places: writing zeros first took seconds for the 4B."""
    before = status_bytes("VmRSS")
    matrix = PackedMatrix(8192, 16384, 4)
    grown = (status_bytes("VmRSS") or 0) - (before or 0)
    assert matrix.values.nbytes > 70e6 and grown < 16e6, (matrix.values.nbytes, grown)
    assert not matrix.values[:1000].any() and not matrix.values[-1000:].any()
    rows = torch.ones(16, 16384)
    matrix.fill(8176, rows)
    assert torch.equal(matrix.matrix.rows(torch.arange(8176, 8192)), rows)
