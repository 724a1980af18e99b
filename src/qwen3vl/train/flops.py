"""How much arithmetic a batch is, and how much a machine can do.

A matrix product of weights with n values on one token is 2n operations. Backward takes as many again for the
gradients of the inputs, and as many for those of the weights if they train; nothing where no gradient has to pass.
Attention within length n costs 4 n^2 H N operations (half of it where it is causal), three times with backward.
Embeddings, norms and AdamW are not counted, so that shares of the peak are lower bounds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from qwen3vl.config import ModelConfig
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import Grid
from qwen3vl.train.examples import Encoded
from qwen3vl.train.packing import TrainBatch

_MEASURING = 0.3  # seconds


@dataclass(frozen=True, slots=True)
class FlopCounter:
    """Operations of forward and backward: per text token, per row of the head, per patch, per merged token."""

    config: ModelConfig
    per_token: float
    per_label: float
    per_patch: float
    per_merged: float
    text_attention: float
    vision_attention: float

    @classmethod
    def of(cls, model: Qwen3VL) -> FlopCounter:
        config, visual = model.config, model.visual
        mergers = [visual.merger, *visual.deepstack_merger_list]
        tower = [visual.patch_embed, *visual.blocks]
        # Gradients pass through a part if it trains or if something before it does.
        tower_trains, mergers_train = any(map(_trains, tower)), any(map(_trains, mergers))
        reaches_text = tower_trains or mergers_train or _trains(model.language_model)
        text = sum(_values(layer) for layer in model.language_model.layers) - _idle_experts(config)
        head = model.lm_head.out_features * model.lm_head.in_features  # type: ignore[operator]
        if config.text.moe is None:  # the end of the last layer runs for learnt tokens only
            last = model.language_model.layers[-1]
            late = _values(last.mlp) + _values(last.self_attn.o_proj)  # type: ignore[arg-type, union-attr]
            text, head = text - late, head + late
        text_width = config.text.num_attention_heads * config.text.head_dim * config.text.num_hidden_layers
        vision_width = config.vision.hidden_size * config.vision.depth
        return cls(
            config,
            2 * text * _passes(_trains(model.language_model.layers), reaches_text),
            2 * head * _passes(_trains(model.lm_head), reaches_text),
            2 * sum(_values(module) for module in tower) * _passes(tower_trains, tower_trains),
            2 * sum(map(_values, mergers)) * _passes(mergers_train, mergers_train or tower_trains),
            2.0 * text_width * _passes(reaches_text, reaches_text),
            4.0 * vision_width * _passes(tower_trains, tower_trains),
        )

    def __call__(self, batch: TrainBatch) -> float:
        return self._count(batch.num_labels, batch.lengths, batch.frames)

    def conversation(self, example: Encoded) -> float:
        """Of a conversation that is not in a batch yet."""
        grids = (visual.grid_thw for visual in example.inputs.visuals)
        frames = [(height, width) for number, height, width in grids for _ in range(number)]
        return self._count(example.num_labels, (example.num_tokens,), frames)

    def tower(self, batch: TrainBatch) -> float:
        """The vision tower's and the mergers' part."""
        return self._tower(batch.frames)

    def _count(self, num_labels: int, lengths: Sequence[int], frames: Sequence[Grid]) -> float:
        attention = self.text_attention * sum(length**2 for length in lengths)
        return self.per_token * sum(lengths) + self.per_label * num_labels + attention + self._tower(frames)

    def _tower(self, frames: Sequence[Grid]) -> float:
        patches = [height * width for height, width in frames]
        merged = sum(patches) / self.config.vision.spatial_merge_size**2
        attention = self.vision_attention * sum(number**2 for number in patches)
        return self.per_patch * sum(patches) + self.per_merged * merged + attention


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: the best of a few, within half a second or so."""
    side = 512 if device.type == "cpu" else 8192
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + _MEASURING
    for _ in range(20):
        began = time.perf_counter()
        _ = (a @ b)[0, 0].item()  # item waits for the device
        best = min(best, time.perf_counter() - began)
        if time.perf_counter() > end:
            break
    return 2 * side**3 / best


def _passes(trains: bool, gradient: bool) -> int:
    return 1 + gradient + trains


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _values(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)


def _idle_experts(config: ModelConfig) -> int:
    """Values of experts that a token does not go to."""
    moe = config.text.moe
    if moe is None:
        return 0
    idle = moe.num_experts - moe.num_experts_per_tok
    layers = config.text.num_hidden_layers - len(moe.dense_layers)
    return layers * idle * 3 * config.text.hidden_size * moe.intermediate_size
