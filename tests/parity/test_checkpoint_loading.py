"""Loading is strict both ways, before any weight is read, and tells what is wrong by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwen3vl.errors import CheckpointNotFound, ConfigError, InvalidParams, Qwen3VLError, UnsupportedOption, WeightsError
from qwen3vl.model import checkpoint
from qwen3vl.model.checkpoint import load_model
from tests import models, oracle

WEIGHTS = checkpoint.SINGLE_FILE
DOWN = "model.language_model.layers.2.mlp.down_proj.weight"
MERGER = "model.visual.deepstack_merger_list.1.norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(models.small_folder("4b"), tmp_path / "4b")


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 200_000)
    checkpoint.save_model(models.ours(models.small_folder("4b")), tmp_path / "sharded")
    return tmp_path / "sharded"


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoint, "read_into", read)


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refuses(folder: Path, kind: type[Qwen3VLError], *words: str, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        load_model(folder, **options)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


def same_tensors(a: torch.nn.Module, b: torch.nn.Module) -> None:
    one, two = a.state_dict(), b.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_a_missing_tensor(folder: Path, nothing_read: None) -> None:
    change(folder, lambda tensors: tensors.pop(DOWN))
    refuses(folder, WeightsError, str(folder), "1 missing", DOWN)


def test_an_unexpected_tensor(folder: Path, nothing_read: None) -> None:
    change(folder, lambda tensors: tensors.update({"model.visual.extra": torch.zeros(3)}))
    refuses(folder, WeightsError, str(folder), "1 unexpected", "model.visual.extra")


def test_a_misshaped_tensor(folder: Path, nothing_read: None) -> None:
    change(folder, lambda tensors: tensors.update({MERGER: torch.zeros(64)}))
    refuses(folder, WeightsError, "1 mis-shaped", f"{MERGER} is [64], not [256]")


def test_a_transposed_matrix_is_misshaped(folder: Path, nothing_read: None) -> None:
    """Only fused experts come in two orientations."""
    change(folder, lambda tensors: tensors.update({DOWN: tensors[DOWN].T.contiguous()}))
    refuses(folder, WeightsError, "1 mis-shaped", DOWN)


def test_several_problems_are_named_together(folder: Path, nothing_read: None) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["model.visual.old_name"] = tensors.pop(MERGER)
        tensors[DOWN] = torch.zeros(2, 2)

    change(folder, edit)
    refuses(folder, WeightsError, "1 missing", "1 unexpected", "1 mis-shaped", MERGER, "model.visual.old_name", DOWN)


def test_a_layer_more_in_the_config(folder: Path, nothing_read: None) -> None:
    models.edit_config(folder, text_config={"num_hidden_layers": 5})
    refuses(folder, WeightsError, "11 missing", "model.language_model.layers.4.input_layernorm.weight", "and 6 more")


def test_a_head_where_the_config_says_untied(folder: Path, nothing_read: None) -> None:
    models.edit_config(folder, top={"tie_word_embeddings": False})
    refuses(folder, WeightsError, "1 missing", "lm_head.weight")


def test_a_missing_shard(sharded: Path, nothing_read: None) -> None:
    shards = sorted(sharded.glob("model-*.safetensors"))
    shards[1].unlink()
    refuses(sharded, WeightsError, str(sharded), f"1 of {len(shards)} weight files missing", shards[1].name)


def test_a_shard_without_its_tensor(sharded: Path, nothing_read: None) -> None:
    index = json.loads((sharded / checkpoint.INDEX_FILE).read_text())
    shard = sharded / index["weight_map"][DOWN]
    tensors = load_file(shard)
    del tensors[DOWN]
    save_file(tensors, shard)
    refuses(sharded, WeightsError, checkpoint.INDEX_FILE, DOWN)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(sharded: Path, text: str, nothing_read: None) -> None:
    (sharded / checkpoint.INDEX_FILE).write_text(text)
    refuses(sharded, WeightsError, checkpoint.INDEX_FILE)


@pytest.mark.parametrize("keep", [0, 7, 8, 300, -1, -5000])
def test_a_file_cut_off(folder: Path, keep: int, nothing_read: None) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    refuses(folder, WeightsError, str(folder / WEIGHTS))


@pytest.mark.parametrize(
    "data",
    [
        b"not weights at all",
        b"\xff" * 64,
        (10).to_bytes(8, "little") + b"{" * 10,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (15).to_bytes(8, "little") + b'{"a": [1, 2]}  ',
        (4).to_bytes(8, "little") + b"\xff\xfe\x00\x01",
    ],
)
def test_a_file_of_something_else(folder: Path, data: bytes, nothing_read: None) -> None:
    (folder / WEIGHTS).write_bytes(data)
    refuses(folder, WeightsError, str(folder / WEIGHTS))


def test_no_folder_no_config_no_weights(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", Qwen3VLError, "nowhere")
    refuses(tmp_path, ConfigError, "config.json", "cannot be read")
    shutil.copy(models.small_folder("4b") / "config.json", tmp_path)
    refuses(tmp_path, CheckpointNotFound, str(tmp_path), WEIGHTS)


def test_quantised_weights(folder: Path, nothing_read: None) -> None:
    models.edit_config(folder, top={"quantization_config": {"quant_method": "fp8"}})
    refuses(folder, UnsupportedOption, "fp8", "not supported")
    models.edit_config(folder, top={"quantization_config": ...})
    change(folder, lambda tensors: tensors.update({DOWN: tensors[DOWN].to(torch.float8_e4m3fn)}))
    refuses(folder, UnsupportedOption, DOWN, "float8_e4m3fn")
    change(folder, lambda tensors: tensors.update({DOWN: torch.zeros(96, 160, dtype=torch.int8)}))
    refuses(folder, UnsupportedOption, DOWN, "int8")


def test_options_that_do_not_exist(folder: Path, nothing_read: None) -> None:
    refuses(folder, InvalidParams, "'float31'", dtype="float31")
    refuses(folder, InvalidParams, "'warp'", device="warp")
    refuses(folder, UnsupportedOption, "'eager'", attention="eager")
    refuses(folder, InvalidParams, "exclude each other", device="cpu", device_map="auto")


def test_sharded_is_single(sharded: Path) -> None:
    same_tensors(load_model(sharded), models.ours(models.small_folder("4b")))


def test_both_orientations_of_the_experts(tmp_path: Path) -> None:
    released = models.small_folder("30b-a3b")
    turned = shutil.copytree(released, tmp_path / "turned")

    def turn(tensors: dict[str, Tensor]) -> None:
        experts = [name for name in tensors if ".experts." in name]
        assert len(experts) == 8
        tensors |= {name: tensors[name].transpose(1, 2).contiguous() for name in experts}

    assert load_file(released / WEIGHTS)["model.language_model.layers.0.mlp.experts.gate_up_proj"].shape == (8, 96, 80)
    change(turned, turn)
    same_tensors(load_model(turned), load_model(released))


def test_a_tied_head_may_be_in_the_file(folder: Path) -> None:
    plain = load_model(folder)
    change(folder, lambda tensors: tensors.update({"lm_head.weight": torch.full((1000, 96), 7.0)}))
    model = load_model(folder)
    same_tensors(model, plain)
    assert model.lm_head.weight is model.language_model.embed_tokens.weight


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16", torch.float16])
def test_dtypes(stored: torch.dtype, wanted: torch.dtype | str, tmp_path: Path) -> None:
    folder = models.write(models.small_config("30b-a3b"), dtype=stored)
    model = load_model(folder, dtype=wanted)
    expected = {"auto": stored, "float32": torch.float32, "bfloat16": torch.bfloat16}.get(str(wanted), torch.float16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {expected}
    name = "language_model.layers.1.mlp.experts.down_proj"
    in_file = load_file(folder / WEIGHTS)[f"model.{name}"].transpose(1, 2)
    assert torch.equal(model.state_dict()[name], in_file.to(expected))


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_auto_dtype_is_the_one_that_the_config_names(key: str, tmp_path: Path) -> None:
    """Half the file for the same float32 model; transformers reads it in the same way."""
    folder = shutil.copytree(models.write(models.small_config("4b"), dtype=torch.float16), tmp_path / "stated")
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | {key: "float32"}))
    assert load_model(folder).dtype == torch.float32
    assert load_model(folder, dtype="float16").dtype == torch.float16
    oracle.import_torchvision()
    from transformers import AutoModelForImageTextToText

    assert AutoModelForImageTextToText.from_pretrained(folder).dtype == torch.float32


def test_auto_dtype_is_that_of_most_values(folder: Path) -> None:
    change(folder, lambda t: t.update({k: v.bfloat16() for k, v in t.items() if "norm" not in k}))
    assert load_model(folder).dtype == torch.bfloat16


def test_small_pieces_are_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl.model.safetensors_file.PIECE_BYTES", 1000)
    seen: list[tuple[int, int]] = []
    model = load_model(folder, progress=lambda done, of: seen.append((done, of)))
    same_tensors(model, models.ours(models.small_folder("4b")))
    total = sum(tensor.nbytes for name, tensor in model.state_dict().items() if name != "lm_head.weight")
    assert seen[-1] == (total, total) and len(seen) > 500
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_file_that_shrinks_after_its_header_was_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = checkpoint.find_tensors

    def find_then_cut(path: Path) -> Any:
        found = find(path)
        with (path / WEIGHTS).open("r+b") as file:
            file.truncate(200_000)
        return found

    monkeypatch.setattr(checkpoint, "find_tensors", find_then_cut)
    refuses(folder, WeightsError, "ended early")


def test_the_model_is_ready_to_run() -> None:
    model = load_model(models.small_folder("30b-a3b"))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert not any(p.is_meta for p in model.parameters())
