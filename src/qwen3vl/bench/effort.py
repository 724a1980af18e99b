"""What a piece of work costs at least: operations, by the type they can be done in, and bytes of weights and cache.

Counted from the architecture; a multiplication and an addition are two operations. Norms, rotary positions, activation
functions and the copying of activations are left out, so that a share of the peak is what the products get.

Worked example, one token of the 2B (D 2048, 16 heads and 8 key/value heads of 128, I 6144, 28 layers): attention has
2048 x (2048 + 2 x 1024) + 2048 x 2048 = 12,582,912 weights a layer, the MLP 3 x 2048 x 6144 = 37,748,736; twice their
sum times 28 is 2,818,572,288 operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from qwen3vl.config import ModelConfig, TextConfig
from qwen3vl.kernels.cpu.probe import Peaks
from qwen3vl.model.packed_layers import PackedMatrix
from qwen3vl.model.qwen3vl import Qwen3VL


@dataclass(frozen=True, slots=True)
class Effort:
    """Operations in float32 (or bfloat16) and on bytes, and bytes that must come from memory."""

    floats: float = 0.0
    integers: float = 0.0
    bytes_read: float = 0.0

    def least_seconds(self, peaks: Peaks) -> float:
        """At the machine's peaks: reading and computing overlap, the two kinds of operations do not."""
        integers = 0.0 if not self.integers else self.integers / (peaks.integers or peaks.floats)
        return max(self.floats / peaks.floats + integers, self.bytes_read / peaks.read)


def prefill_effort(model: Qwen3VL, num_tokens: int) -> Effort:
    """Of reading a prompt of text, with the logits of its last token."""
    text = model.config.text
    products = num_tokens * token_operations(text) + head_operations(text)
    return _split(model.language_model.layers, products, causal_operations(text, num_tokens), weight_bytes(model))


def decode_effort(model: Qwen3VL, context: int, kv_bytes_per_token: int) -> Effort:
    """Of one token behind `context` others: all weights that it uses and the whole cache are read once."""
    text = model.config.text
    attention = 4 * text.num_attention_heads * text.head_dim * (context + 1) * text.num_hidden_layers
    read = weight_bytes(model) + kv_bytes_per_token * context
    return _split(model.language_model.layers, token_operations(text) + head_operations(text), attention, read)


def vision_effort(model: Qwen3VL, num_patches: int) -> Effort:
    """Of one picture through the tower."""
    vision = model.config.vision
    width, merged = vision.hidden_size, vision.hidden_size * vision.spatial_merge_size**2
    block = num_patches * 2 * (4 * width**2 + 2 * width * vision.intermediate_size)
    mergers = 1 + len(vision.deepstack_visual_indexes)
    merging = num_patches // vision.spatial_merge_size**2 * 2 * (merged**2 + merged * vision.out_hidden_size)
    attention = 4 * num_patches**2 * width * vision.depth
    embedding = num_patches * 2 * vision.patch_values * width
    read = sum(t.nbytes for t in (*model.visual.parameters(), *model.visual.buffers()))
    return _split(model.visual.blocks, vision.depth * block + mergers * merging, attention + embedding, read)


def token_operations(text: TextConfig) -> float:
    """Of all layers' products with weights, for one token."""
    queries = text.num_attention_heads * text.head_dim
    attention = text.hidden_size * (queries + 2 * text.num_key_value_heads * text.head_dim) + queries * text.hidden_size
    if text.moe is None:
        mlp = 3 * text.hidden_size * text.intermediate_size
    else:
        chosen = 3 * text.hidden_size * text.moe.intermediate_size * text.moe.num_experts_per_tok
        mlp = chosen + text.hidden_size * text.moe.num_experts
    return 2.0 * text.num_hidden_layers * (attention + mlp)


def head_operations(text: TextConfig) -> float:
    return 2.0 * text.hidden_size * text.vocab_size


def causal_operations(text: TextConfig, num_tokens: int) -> float:
    """Queries times keys and weights times values, where each token sees itself and those before it."""
    pairs = num_tokens * (num_tokens + 1) / 2
    return 4.0 * text.num_attention_heads * text.head_dim * pairs * text.num_hidden_layers


def weight_bytes(model: Qwen3VL) -> float:
    """That one token uses: layers, final norm and head; of the experts those that it is sent to."""
    text, total = model.config.text, 0.0
    for name, tensor in (*model.language_model.named_parameters(), *model.language_model.named_buffers()):
        if name.startswith("embed_tokens"):
            continue  # one row
        share = text.moe.num_experts_per_tok / text.moe.num_experts if text.moe and ".experts." in name else 1.0
        total += share * tensor.nbytes
    head: nn.Module = model.language_model.embed_tokens if model.config.tie_word_embeddings else model.lm_head
    return total + sum(t.nbytes for t in (*head.parameters(), *head.buffers()))


def _split(layers: nn.Module, products: float, attention: float, bytes_read: float) -> Effort:
    """Products with weights are on bytes where the weights are packed; attention is not."""
    if any(isinstance(module, PackedMatrix) for module in layers.modules()):
        return Effort(attention, products, bytes_read)
    return Effort(products + attention, 0.0, bytes_read)


def describe(config: ModelConfig) -> str:
    return f"{config.text.num_hidden_layers} decoder layers, {config.vision.depth} vision blocks"


def weights_of(model: Qwen3VL) -> str:
    """ "int4", "int8" or the dtype of the decoder's weights."""
    packed = next((m for m in model.language_model.modules() if isinstance(m, PackedMatrix)), None)
    return str(model.dtype).removeprefix("torch.") if packed is None else f"int{packed.bits}"
