"""Which layers of a model are quantised, and how a checkpoint's tensors get into them.

decoder    q, k, v, o, gate, up, down, experts, embedding, head    int4 or int8
vision     qkv, proj, fc1, fc2 of blocks and mergers               int8 (or left as they are)
           attention                                               rounded as far as that is faster
the rest   norms, biases, routers, patch and position embeddings   float32
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from qwen3vl.errors import InvalidParams
from qwen3vl.model.attention import KernelAttention, RoundedAttention
from qwen3vl.model.layers import SwiGLU
from qwen3vl.model.moe import Experts, SparseMlp
from qwen3vl.model.packed_layers import (
    Bits,
    PackedEmbedding,
    PackedExperts,
    PackedHead,
    PackedLinear,
    PackedSwiGLU,
)
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.text import DecoderLayer
from qwen3vl.model.vision import VisionAttention

Fill = Callable[[int, Tensor], None]
"""(first row, rows in the model's layout): puts a piece of a tensor where it belongs; a row of experts is an expert."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """Bits of the decoder's weights, and of the vision tower's (None: not quantised)."""

    bits: Bits
    vision_bits: Literal[8] | None = 8

    @classmethod
    def named(cls, name: str) -> Quantization:
        """ "int8" or "int4". Raises InvalidParams."""
        if name not in ("int8", "int4"):
            raise InvalidParams(f"quantize={name!r} is not known: choose int8 or int4")
        return cls(8 if name == "int8" else 4)


def replace_layers(model: Qwen3VL, quantization: Quantization) -> dict[str, Fill]:
    """Put packed layers in place (run it under the device their memory shall be on).

    -> for each tensor of the plain model that is packed now, by name, what fills it.
    """
    fills: dict[str, Fill] = {}
    bits = quantization.bits
    for index, layer in enumerate(model.language_model.layers):
        assert isinstance(layer, DecoderLayer)
        prefix = f"language_model.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            fills |= _pack_linear(layer.self_attn, name, f"{prefix}.self_attn.{name}", bits)
        if isinstance(layer.mlp, SwiGLU):
            layer.mlp, own = _packed_swiglu(layer.mlp, f"{prefix}.mlp", bits)
        else:
            assert isinstance(layer.mlp, SparseMlp)
            experts, own = _packed_experts(layer.mlp.experts, f"{prefix}.mlp.experts", bits)
            layer.mlp.experts = experts  # type: ignore[assignment]  # declared as the ordinary layer
        fills |= own
    fills |= _pack_embedding(model, bits)
    if quantization.vision_bits is not None:
        for prefix, module in list(model.visual.named_modules()):
            if isinstance(module, VisionAttention) and type(module.attention) is KernelAttention:
                module.attention = RoundedAttention()
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and prefix != "patch_embed":
                    fills |= _pack_linear(module, name, f"visual.{prefix}.{name}", quantization.vision_bits)
    return fills


def _pack_linear(owner: nn.Module, name: str, full_name: str, bits: Bits) -> dict[str, Fill]:
    old = getattr(owner, name)
    new = PackedLinear(old.in_features, old.out_features, old.bias is not None, bits)
    setattr(owner, name, new)
    return {f"{full_name}.weight": new.fill}


def _packed_swiglu(old: SwiGLU, name: str, bits: Bits) -> tuple[PackedSwiGLU, dict[str, Fill]]:
    new = PackedSwiGLU(old.gate_proj.in_features, old.gate_proj.out_features, bits)
    fills: dict[str, Fill] = {
        f"{name}.gate_proj.weight": lambda first, rows: new.gate_up.fill(first, rows, every=2, offset=0),
        f"{name}.up_proj.weight": lambda first, rows: new.gate_up.fill(first, rows, every=2, offset=1),
        f"{name}.down_proj.weight": new.down.fill,
    }
    return new, fills


def _packed_experts(old: Experts, name: str, bits: Bits) -> tuple[PackedExperts, dict[str, Fill]]:
    count, hidden, inner = old.down_proj.shape
    new = PackedExperts(hidden, inner, count, bits)

    def expert(number: int) -> PackedSwiGLU:
        module = new.experts[number]
        assert isinstance(module, PackedSwiGLU)
        return module

    def fill_gate_up(first: int, experts_ERK: Tensor) -> None:
        for number, rows_RK in enumerate(experts_ERK, start=first):
            for offset, half in enumerate(rows_RK.chunk(2)):
                expert(number).gate_up.fill(0, half, every=2, offset=offset)

    def fill_down(first: int, experts_ERK: Tensor) -> None:
        for number, rows_RK in enumerate(experts_ERK, start=first):
            expert(number).down.fill(0, rows_RK)

    return new, {f"{name}.gate_up_proj": fill_gate_up, f"{name}.down_proj": fill_down}


def _pack_embedding(model: Qwen3VL, bits: Bits) -> dict[str, Fill]:
    old = model.language_model.embed_tokens
    packed = PackedEmbedding(old.num_embeddings, old.embedding_dim, bits)
    setattr(model.language_model, "embed_tokens", packed)  # noqa: B010
    fills: dict[str, Fill] = {"language_model.embed_tokens.weight": packed.fill}
    if model.config.tie_word_embeddings:
        setattr(model, "lm_head", PackedHead(packed))  # noqa: B010
    else:
        fills |= _pack_linear(model, "lm_head", "lm_head", bits)
    return fills
