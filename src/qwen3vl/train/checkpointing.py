"""Gradient checkpointing: a layer's activations are not kept but computed again on the way back.

What stays in memory is the input of each layer; the price is one more forward pass, about a third of the
time. Gradients are the same. The layers are changed in place and their names are not, so that weights are
saved as ever; fully_shard, if used, comes after this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.text import DecoderLayer
from qwen3vl.model.vision import VisionBlock


def use_gradient_checkpointing(model: Qwen3VL, *, text: bool = True, vision: bool = True) -> None:
    """Checkpoint every decoder layer and every block of the tower. Inference is as before."""
    kinds = (DecoderLayer,) * text + (VisionBlock,) * vision
    for module in model.modules():
        if isinstance(module, kinds) and "forward" not in vars(module):
            module.forward = _checkpointed(module.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*args: object) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args)
        # Not re-entrant: frozen inputs, and tensors used outside (router logits), keep their gradients.
        return checkpoint(forward, *args, use_reentrant=False)

    return run
