"""Naive generation: every token recomputes everything. The oracle that the engine is tested against.

No cache, no batch, no chunks, no reuse: what is computed here can be read off the model's definition.

Shape names: T tokens of prompt and answer so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from qwen3vl.inputs import ModelInputs
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures


@torch.inference_mode()
def generate_greedy(model: Qwen3VL, inputs: ModelInputs, max_tokens: int, eos_ids: Collection[int] = ()) -> list[int]:
    """The most likely tokens behind a prompt, one by one; an end token is the last of them."""
    features = encode(model, inputs)
    answer: list[int] = []
    while len(answer) < max_tokens and not (answer and answer[-1] in eos_ids):
        answer.append(int(all_logits(model, inputs, answer, features)[-1].argmax()))
    return answer


@torch.inference_mode()
def all_logits(
    model: Qwen3VL, inputs: ModelInputs, answer: Sequence[int] = (), features: VisualFeatures | None = None
) -> Tensor:
    """-> logits_TV behind each token of prompt and answer. `features` may be given to save their time."""
    ids_T = torch.tensor([*inputs.input_ids_T.tolist(), *answer], device=model.device)
    merge_size = model.config.vision.spatial_merge_size
    positions_3T, _ = mrope_positions(len(ids_T), inputs.spans, merge_size)
    context = ForwardContext.pack([len(ids_T)])
    return model(ids_T, torch.from_numpy(positions_3T).to(model.device), context, features or encode(model, inputs))


@torch.inference_mode()
def encode(model: Qwen3VL, inputs: ModelInputs) -> VisualFeatures | None:
    """The visual tokens of all pictures and videos, each run through the tower on its own."""
    parts = []
    for visual in inputs.visuals:
        t, h, w = visual.grid_thw
        parts.append(model.encode_visuals(torch.from_numpy(visual.patches.read()), [(h, w)] * t))
    return VisualFeatures.join(parts) if parts else None
