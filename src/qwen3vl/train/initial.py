"""First values of a model that is trained from scratch.

Matrices: normal with a deviation of 1 / sqrt(inputs), so that activations keep their size at any width; those that
write into the residual stream are smaller by sqrt(2 x layers), so that they keep it at any depth (GPT-2).
Embeddings, position table and router: 0.02. Norms 1, biases 0.
"""

from __future__ import annotations

import torch

from qwen3vl.model.qwen3vl import Qwen3VL

_SMALL = 0.02
_INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight", "down_proj", "attn.proj.weight", "linear_fc2.weight")


@torch.no_grad()
def initialise(model: Qwen3VL, seed: int) -> None:
    """Same seed, same weights."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            values = torch.empty(parameter.shape).normal_(0.0, _deviation(name, parameter, model), generator=random)
            parameter.copy_(values)


def _deviation(name: str, parameter: torch.Tensor, model: Qwen3VL) -> float:
    if any(part in name for part in ("embed_tokens", "pos_embed", "mlp.gate.weight")):
        return _SMALL
    std = float(parameter.shape[-1] ** -0.5)
    if name == "lm_head.weight":
        return _SMALL
    depth = model.config.vision.depth if "visual." in name else model.config.text.num_hidden_layers
    inside = ".blocks." in name or ".layers." in name
    return std * (2 * depth) ** -0.5 if inside and name.endswith(_INTO_RESIDUAL) else std
