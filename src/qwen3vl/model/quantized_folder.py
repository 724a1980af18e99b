"""Folders of quantised models: written once, loaded by mapping the file into memory, and shared between processes.

config.json            the checkpoint's own, and under "quantization_config" what was done to the weights
model.safetensors      packed matrices (uint8) and the tensors that were left alone (float32), by module name
the rest               tokenizer, template and processor files, as they were
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.errors import UnsupportedOption, WeightsError
from qwen3vl.model.quantize import Quantization, replace_layers
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.safetensors_file import SINGLE_FILE, read_header

METHOD = "qwen3vl"
FORMAT_VERSION = 1  # of the layout in kernels/cpu/csrc/layout.h and of the names


def save_quantized(model: Qwen3VL, quantization: Quantization, source: Path, folder: Path) -> None:
    """Write a model that was loaded with `quantization` from the folder `source`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        weights = path.suffix in (".safetensors", ".bin", ".pt") or path.name.endswith(".index.json")
        if path.is_file() and not weights and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": METHOD, "version": FORMAT_VERSION, **asdict(quantization)}
    save_file(dict(_tensors(model)), folder / SINGLE_FILE, metadata={"format": METHOD})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def quantization_of(folder: Path) -> Quantization | None:
    """What the weights of a folder are: None if they are not quantised.

    Raises UnsupportedOption for other methods, WeightsError for another version of ours.
    """
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if not stated:
        return None
    if stated.get("quant_method") != METHOD:
        raise UnsupportedOption(
            f"{folder}: the weights are quantised ({stated.get('quant_method', 'unknown method')}), "
            "which is not supported yet: use the unquantised checkpoint"
        )
    if stated.get("version") != FORMAT_VERSION:
        raise WeightsError(
            f"{folder}: quantised by another version of qwen3vl (format {stated.get('version')}, this one reads "
            f"{FORMAT_VERSION}): quantise the original checkpoint again"
        )
    return Quantization(stated["bits"], stated["vision_bits"])


def load_quantized(folder: Path, attention: str | None = None) -> Qwen3VL:
    """Map a folder that `save_quantized` wrote. Pages are read when they are first used.

    Raises WeightsError if tensors are missing, unexpected or mis-shaped.
    """
    quantization = quantization_of(folder)
    assert quantization is not None, folder
    with torch.device("meta"):
        model = Qwen3VL(ModelConfig.from_folder(folder))
    model.use_attention(attention)
    replace_layers(model, quantization)
    stored, wanted = read_header(folder / SINGLE_FILE), dict(_tensors(model))
    problems = [f"{name} is missing" for name in wanted if name not in stored]
    problems += [f"{name} is unexpected" for name in stored if name not in wanted]
    problems += [
        f"{name} is {list(stored[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in stored and stored[name].shape != tuple(tensor.shape)
    ]
    if problems:
        raise WeightsError(f"{folder}: the quantised weights do not fit: {'; '.join(problems[:5])}")
    for name, item in stored.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        tensor = _mapped(item.path, item.begin, item.num_bytes).view(item.dtype).view(item.shape)
        if leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            setattr(module, leaf, torch.nn.Parameter(tensor, requires_grad=False))
    return model.eval()


def _tensors(model: Qwen3VL) -> Iterator[tuple[str, Tensor]]:
    """Packed matrices first: they are the ones that are read in place, and rows of 64 bytes want even addresses."""
    tensors = list(model.state_dict().items())
    yield from (item for item in tensors if item[1].dtype == torch.uint8)
    yield from (item for item in tensors if item[1].dtype != torch.uint8)


def _mapped(path: Path, begin: int, num_bytes: int) -> Tensor:
    """uint8 values of a file, copied on write, so that nothing can change the file."""
    return torch.from_numpy(np.memmap(path, np.uint8, mode="c", offset=begin, shape=(num_bytes,)))
