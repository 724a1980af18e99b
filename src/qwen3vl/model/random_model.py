"""Models with random weights, made in memory: what speed and memory are measured on when no checkpoint is at hand."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.model.quantize import Quantization, replace_layers
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import random_tensors


def random_model(
    config: ModelConfig,
    *,
    dtype: torch.dtype = torch.bfloat16,
    quantize: Quantization | None = None,
    attention: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Qwen3VL:
    """What `load_model` gives for a folder of `write_random_checkpoint`, with the same values, without the folder.

    `quantize` packs each tensor as it is drawn; what is not packed is float32 then, as after loading.
    `progress` is told values drawn and in all.
    """
    with torch.device("meta"):
        model = Qwen3VL(config)
    model.use_attention(attention)
    fills = {} if quantize is None else replace_layers(model, quantize)
    for name, tensor in random_tensors(config, 0, dtype, progress):
        if name in fills:
            fills[name](0, tensor)
            continue
        owner, _, leaf = name.rpartition(".")
        values = tensor if quantize is None else tensor.float()
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(values, requires_grad=False))
    if config.tie_word_embeddings and quantize is None:
        model.lm_head.weight = model.language_model.embed_tokens.weight
    return model.eval().requires_grad_(False)
