"""Adapters: the same numbers here and in transformers + peft, both ways; merging; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3vl.cli.main import main
from qwen3vl.errors import CheckpointNotFound, InvalidParams, UnsupportedOption, WeightsError
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.lora import (
    GROUPS,
    add_lora,
    export_merged,
    load_adapter,
    lora_parameters,
    merge_lora,
    save_adapter,
    target_modules,
)
from qwen3vl.train.settings import LoraSettings
from tests import models

CONFIG = models.small_config("4b")
PROMPT = models.make_prompt(CONFIG, 6, ("image", 4, 6), 9)
ALL = LoraSettings(rank=4, alpha=12, targets=GROUPS)


def logits(model: Qwen3VL) -> Tensor:
    return models.prefill(model, [PROMPT])[0]


def their_logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(**models.oracle_inputs([PROMPT], CONFIG)).logits[0]


def adapted(settings: LoraSettings = ALL, edition: str = "4b") -> Qwen3VL:
    """A model whose factors are both random, as after training."""
    model = load_model(models.small_folder(edition))
    add_lora(model, settings, base=str(models.small_folder(edition)))
    torch.manual_seed(1)
    for parameter in lora_parameters(model).values():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    model, folder = adapted(), tmp_path_factory.mktemp("adapter")
    save_adapter(model, folder)
    return folder, logits(model)


def test_adding_changes_nothing_and_freezes_the_rest() -> None:
    model = load_model(models.small_folder("4b")).requires_grad_(True)
    before = logits(model)
    add_lora(model, ALL)
    assert torch.equal(logits(model), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(lora_parameters(model)) and all(".lora_" in name for name in trained)
    layers, blocks, taps = CONFIG.text.num_hidden_layers, CONFIG.vision.depth, 3
    assert len(trained) == 2 * (7 * layers + 4 * blocks + 2 * (1 + taps))
    with pytest.raises(UnsupportedOption, match="an adapter already"):
        add_lora(model, ALL)


def test_loss_reaches_every_factor() -> None:
    model = adapted()
    features = models.encode(model, [PROMPT])
    positions, _ = models.positions_of(PROMPT, CONFIG)
    out = model(PROMPT.input_ids_T, positions, ForwardContext.pack([len(PROMPT)]), features)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (".lora_" in name), name


def test_transformers_and_peft_load_it(saved: tuple[Path, Tensor]) -> None:
    folder, expected = saved
    base = models.load_theirs(models.small_folder("4b"))
    import peft

    theirs = peft.PeftModel.from_pretrained(base, folder)
    assert models.difference(their_logits(theirs), expected) < models.TOLERANCE
    assert models.difference(logits(models.ours(models.small_folder("4b"))), expected) > 0.01
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(models.small_folder("4b"))


def test_load(saved: tuple[Path, Tensor]) -> None:
    model = load_model(models.small_folder("4b"))
    load_adapter(model, saved[0], trainable=True)
    assert torch.equal(logits(model), saved[1])
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(lora_parameters(model))


def test_load_what_peft_saved(tmp_path: Path) -> None:
    """With a pattern over transformers' names, as the official fine-tuning could write it."""
    theirs = models.load_theirs(models.small_folder("4b"))
    import peft

    torch.manual_seed(2)
    pattern = r"model\.language_model\.layers\.[12]\.self_attn\.[qv]_proj"
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=pattern, init_lora_weights=False)
    theirs = peft.get_peft_model(theirs, config)
    expected = their_logits(theirs)
    theirs.save_pretrained(tmp_path)
    model = load_model(models.small_folder("4b"))
    load_adapter(model, tmp_path)
    assert models.difference(logits(model), expected) < models.TOLERANCE
    assert len(lora_parameters(model)) == 8 and not any(p.requires_grad for p in model.parameters())


def test_merge_leaves_a_plain_model() -> None:
    model = adapted()
    expected = logits(model)
    merge_lora(model)
    assert models.difference(logits(model), expected) < models.TOLERANCE
    assert set(model.state_dict()) == set(models.ours(models.small_folder("4b")).state_dict())
    add_lora(model, ALL)  # and it can be adapted anew


def test_export(saved: tuple[Path, Tensor], tmp_path: Path) -> None:
    export_merged(models.small_folder("4b"), saved[0], tmp_path / "merged")
    assert models.difference(logits(load_model(tmp_path / "merged")), saved[1]) < models.TOLERANCE
    assert models.difference(their_logits(models.load_theirs(tmp_path / "merged")), saved[1]) < models.TOLERANCE
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert names == {path.name for path in models.small_folder("4b").iterdir()}
    assert main(["train", "merge", str(saved[0]), str(tmp_path / "same")]) == 0  # the adapter says what it belongs to
    assert torch.equal(logits(load_model(tmp_path / "same")), logits(load_model(tmp_path / "merged")))
    with pytest.raises(InvalidParams, match="not empty"):
        export_merged(models.small_folder("4b"), saved[0], tmp_path / "merged")


def test_mixture_of_experts() -> None:
    with pytest.raises(UnsupportedOption, match=r"mlp\.experts\.gate_up_proj"):
        adapted(LoraSettings(targets=("attention", "mlp")), "30b-a3b")
    model = adapted(LoraSettings(targets=("attention", "vision", "mergers")), "30b-a3b")
    assert not any("mlp.experts" in name for name in lora_parameters(model))


def test_16_bit_weights_keep_float32_factors() -> None:
    model = load_model(models.small_folder("4b"), dtype="bfloat16")
    add_lora(model, ALL)
    assert {p.dtype for p in lora_parameters(model).values()} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"peft_type": "IA3"}, UnsupportedOption, "'IA3' is not LORA"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedOption, "modules_to_save cannot be honoured"),
    ],
)
def test_refused_configs(saved: tuple[Path, Tensor], tmp_path: Path, change: Any, error: Any, match: str) -> None:
    copy_of(saved[0], tmp_path, change)
    with pytest.raises(error, match=match):
        load_adapter(load_model(models.small_folder("4b")), tmp_path)


def copy_of(folder: Path, target: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / "adapter_config.json").read_text()) | change
    (target / "adapter_config.json").write_text(json.dumps(config))
    (target / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())


def test_weights_that_do_not_fit(saved: tuple[Path, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"holds no adapter_config\.json"):
        load_adapter(load_model(models.small_folder("4b")), tmp_path)
    with pytest.raises(WeightsError, match="adapts modules that the model does not have"):
        load_adapter(load_model(models.write(models.small_config("4b", text={"num_hidden_layers": 3}))), saved[0])
    with pytest.raises(WeightsError, match="does not fit the model"):
        load_adapter(load_model(models.write(models.small_config("4b", text={"intermediate_size": 128}))), saved[0])


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        ("head", InvalidParams, "'head' is no layer of the model, and none of attention, mlp, vision, mergers"),
        ("norm", InvalidParams, "'norm' is no layer"),
        ("proj", UnsupportedOption, r"patch_embed\.proj is a convolution"),
        ("lm_head", UnsupportedOption, "shares its weight with the embeddings"),
    ],
)
def test_refused_targets(target: str, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        target_modules(models.ours(models.small_folder("4b")), ("q_proj", target))
