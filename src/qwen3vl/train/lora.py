"""LoRA (arXiv 2106.09685) through the peft library: adapters that transformers, vLLM and others load.

    add_lora(model, settings)      low-rank factors beside the chosen linear layers; all else is frozen
    save_adapter(model, folder)    adapter_config.json and adapter_model.safetensors, a few megabytes
    load_adapter(model, folder)    such a folder, from here or from transformers + peft
    merge_lora(model)              the factors go into the weights; what is left is a plain Qwen3VL
    export_merged(base, adapter, folder)   the same from folders to a folder

Names in adapter files are those of transformers' model, `base_model.model.` and checkpoint.py's table:
`base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight`.
peft replaces nn.Linear modules. A quantised linear layer needs an entry of its own in LoraConfig's
`_register_custom_module`, and QLoRA is then this module unchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from qwen3vl.errors import CheckpointNotFound, InvalidParams, UnsupportedOption, WeightsError
from qwen3vl.model.checkpoint import file_name, load_model, save_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.safetensors_file import INDEX_FILE
from qwen3vl.train.settings import LoraSettings

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_ADAPTER = "default"  # peft's own name for the only adapter

# Names for groups of targets: ends of module names that occur nowhere else in the model.
_GROUPS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "vision": ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"),
    "mergers": ("merger.linear_fc1", "merger.linear_fc2"),
}
GROUPS = tuple(_GROUPS)


def target_modules(model: Qwen3VL, targets: Sequence[str]) -> list[str]:
    """The ends of the names of all layers to adapt, the same here and in transformers.

    A target is the end of a layer's name, or one of GROUPS: attention and mlp of the language model, vision (the
    tower's blocks), mergers (DeepStack's included). Raises InvalidParams for one that is no layer, and
    UnsupportedOption for the experts of a mixture and for layers whose adapter would not load elsewhere.
    """
    ends = [end for target in targets for end in _GROUPS.get(target, (target,))]
    if "mergers" in targets:
        taps = len(model.config.vision.deepstack_visual_indexes)
        ends += [f"deepstack_merger_list.{k}.linear_fc{n}" for k in range(taps) for n in (1, 2)]
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for end in ends:
        found = [name for name in layers if name == end or name.endswith(f".{end}")]
        if not found and model.config.text.moe is not None and (end in _GROUPS["mlp"] or "expert" in end):
            raise UnsupportedOption(
                f"lora target {end!r}: the experts of this model (mlp.experts.gate_up_proj, mlp.experts.down_proj) "
                "are fused tensors, and LoRA is for linear layers: leave it out"
            )
        if not found:
            raise InvalidParams(f"lora target {end!r} is no layer of the model, and none of {', '.join(GROUPS)}")
        if "visual.patch_embed.proj" in found:
            raise UnsupportedOption(f"lora target {end!r}: patch_embed.proj is a convolution elsewhere")
        if "lm_head" in found and model.config.tie_word_embeddings:
            raise UnsupportedOption(f"lora target {end!r}: lm_head shares its weight with the embeddings")
    return ends


def add_lora(model: Qwen3VL, settings: LoraSettings, base: str = "") -> None:
    """Put trainable factors into the model and freeze all else. The outputs stay as they are: B begins at 0.

    `base` is the checkpoint that the adapter belongs to, a folder or a hub name; it is told in its files.
    The factors are float32 whatever the weights are. Raises what `target_modules` does, and UnsupportedOption where
    there are factors already.
    """
    peft = _peft()
    _refuse_second(model)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_modules(model, settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base or None,
    )
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    _factors_in_float32(model)


def has_lora(model: nn.Module) -> bool:
    return hasattr(model, "peft_config")


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable factors by name."""
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def adapter_tensors(model: Qwen3VL) -> dict[str, Tensor]:
    """What an adapter file holds, by its names there."""
    assert has_lora(model), "add_lora or load_adapter comes first"
    # Handed over as it is, so that peft does not look into sharded tensors.
    state = _peft().get_peft_model_state_dict(model, state_dict=model.state_dict(), adapter_name=_ADAPTER)
    return {_PREFIX + file_name(name): tensor.detach() for name, tensor in state.items()}


def save_adapter(model: Qwen3VL, folder: str | Path, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write the factors as peft does. `tensors` are those of `adapter_tensors`, gathered, if the model is sharded."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: tensor.cpu().contiguous() for name, tensor in (tensors or adapter_tensors(model)).items()}
    save_file(named, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config: Any = model.peft_config[_ADAPTER]  # type: ignore[index]  # an attribute that peft sets
    was_inference, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = was_inference


def load_adapter(model: Qwen3VL, folder: str | Path, *, trainable: bool = False) -> None:
    """Put a saved adapter into a model that has none; all else is frozen.

    Raises CheckpointNotFound, UnsupportedOption (not LoRA, or with whole modules of its own) and WeightsError,
    which names tensors that do not fit.
    """
    from safetensors.torch import load_file

    peft = _peft()
    _refuse_second(model)
    folder = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise CheckpointNotFound(f"{folder}: holds no {' and no '.join(missing)}")
    _check_kind(folder)
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    state = {_our_name(name, folder): tensor for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    absent = sorted({name.split(".lora_")[0] for name in state} - set(dict(model.named_modules())))
    if absent:
        raise WeightsError(f"{folder}: adapts modules that the model does not have: {', '.join(absent[:5])}")
    # Which modules are adapted follows from the tensors: patterns in the config are over transformers' names.
    config.target_modules = sorted({name.split(".lora_")[0] for name in state})
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER, state_dict=state)
    try:
        result = peft.set_peft_model_state_dict(model, state, adapter_name=_ADAPTER)
    except RuntimeError as error:
        raise WeightsError(f"{folder}: the adapter does not fit the model: {error}") from error
    left = [name for name in result.missing_keys if ".lora_" in name] + list(result.unexpected_keys)
    if left:
        raise WeightsError(f"{folder}: tensors missing or unexpected: {', '.join(left[:5])}")
    _factors_in_float32(model)
    for parameter in lora_parameters(model).values():
        parameter.requires_grad_(trainable)


@torch.no_grad()
def merge_lora(model: Qwen3VL) -> None:
    """Add the factors' products to the weights and take the factors away."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # type: ignore[operator]
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, module.get_base_layer())
    del model.peft_config


def export_merged(base: str | Path, adapter: str | Path, folder: str | Path) -> None:
    """Write `base` with the adapter merged as a plain folder, tokenizer and processor files included."""
    base, folder = Path(base), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InvalidParams(f"{folder}: is not empty; give a new folder")
    model = load_model(base)
    load_adapter(model, adapter)
    merge_lora(model)
    save_model(model, folder)
    for path in base.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in (INDEX_FILE, "config.json"):
            shutil.copy(path, folder / path.name)


def base_of(folder: str | Path) -> str:
    """The checkpoint that a saved adapter belongs to. Raises CheckpointNotFound, InvalidParams if it is not told."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointNotFound(f"{folder}: holds no {CONFIG_FILE}")
    base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise InvalidParams(f"{path}: does not say what was adapted; name it")
    return str(base)


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise UnsupportedOption("LoRA needs the peft package: pip install 'qwen3vl[train]'") from error
    return peft


def _refuse_second(model: nn.Module) -> None:
    if has_lora(model):
        raise UnsupportedOption("the model has an adapter already: merge it first")


def _factors_in_float32(model: nn.Module) -> None:
    for parameter in lora_parameters(model).values():
        parameter.data = parameter.data.float()


def _check_kind(folder: Path) -> None:
    values: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if values.get("peft_type") != "LORA":
        raise UnsupportedOption(f"{folder / CONFIG_FILE}: peft_type {values.get('peft_type')!r} is not LORA")
    refused = [key for key in ("modules_to_save", "target_parameters", "trainable_token_indices") if values.get(key)]
    if refused:
        raise UnsupportedOption(f"{folder / CONFIG_FILE}: {', '.join(refused)} cannot be honoured")


def _our_name(name: str, folder: Path) -> str:
    """base_model.model.model.visual.merger.linear_fc1.lora_A.weight -> visual.merger.linear_fc1.lora_A.weight."""
    inner = name.removeprefix(_PREFIX)
    if inner == name or not inner.startswith("model.") or ".lora_" not in inner:
        raise WeightsError(f"{folder / WEIGHTS_FILE}: {name} is no LoRA tensor of Qwen3-VL")
    return inner.removeprefix("model.")
