"""The decoder of an int4 or int8 model in one call of the C++ kernels, for passes of few tokens: decoding.

Between two layers Python's own work would take a fifth of a decode step: the weights that run through the caches
push out everything that it needs. The twin is the loop in TextModel.forward, which also does the rest; both run
the same kernels in the same order, so their results have the same bits.

Shape names: T tokens, D hidden size, H head size.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from qwen3vl.kernels.cpu import steps
from qwen3vl.kernels.cpu.attention import can_attend
from qwen3vl.kernels.cpu.layers import Layer, Pass, run_layers
from qwen3vl.model.attention import ForwardContext, KernelAttention
from qwen3vl.model.cache import PagedKVCache
from qwen3vl.model.layers import RMSNorm
from qwen3vl.model.packed_layers import PackedLinear, PackedMatrix, PackedSwiGLU

MOST_TOKENS = 64  # with more, Python's work is small beside the products

Decoder = Any  # the nn.ModuleList of text.DecoderLayer; text.py imports this file


class PackedDecoder:
    """The layers of one model over one cache, as the kernels want them. It knows where tensors lie in memory: neither
    weights nor pools may be exchanged afterwards. Copies of a model make their own."""

    def __init__(self, layers: Decoder, cache: PagedKVCache) -> None:
        self._cache = weakref.ref(cache)
        self._weights = [x for layer in layers for x in (*layer.parameters(), *layer.buffers())]  # kept alive
        self._layers = (Layer * len(layers))(*(_describe(layer, cache) for layer in layers))

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @staticmethod
    def takes(layers: Decoder, x_TD: Tensor, context: ForwardContext) -> bool:
        """Whether a pass may go this way. What may change between passes; `knows` is about what does not."""
        if context.plan is None or len(x_TD) > MOST_TOKENS or not isinstance(layers[0].mlp, PackedSwiGLU):
            return False
        if not (x_TD.dtype == torch.float32 and steps.can_run(x_TD) and can_attend(x_TD)):
            return False
        return not any(  # nobody looks into the layers, nor has chosen another attention
            layer._forward_hooks
            or layer._forward_pre_hooks
            or not isinstance(layer.self_attn.attention, KernelAttention)
            for layer in layers
        )

    @staticmethod
    def knows(layers: Decoder, cache: PagedKVCache) -> bool:
        """Whether the kernels know all that is in the layers, and the cache."""
        return _slots(cache, 0).keys_KXH.dtype in steps.KV_TYPES and all(map(_is_known, layers))

    def is_over(self, cache: PagedKVCache) -> bool:
        return self._cache() is cache

    def run(self, x_TD: Tensor, rotary: tuple[Tensor, Tensor], context: ForwardContext) -> Tensor:
        """-> what the last layer gives."""
        plan, slots_T, (cosine_TH, sine_TH) = context.plan, context.slot_mapping_T, rotary
        assert plan is not None and slots_T is not None and plan.num_tokens == len(x_TD) == len(slots_T) == len(sine_TH)
        assert cosine_TH.is_contiguous() and sine_TH.is_contiguous() and slots_T.is_contiguous()
        x_TD = x_TD.clone(memory_format=torch.contiguous_format)
        tokens = Pass(
            *(x_TD.data_ptr(), len(x_TD), cosine_TH.data_ptr(), sine_TH.data_ptr(), slots_T.data_ptr()),
            *(len(plan.sequences_S5), plan.sequences_S5.ctypes.data, plan.runs_R2.ctypes.data),
        )
        run_layers(self._layers, tokens)
        return x_TD


def _is_known(layer: Any) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    norms = (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm)
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    if not all(type(x) is RMSNorm for x in norms) or not all(type(x) is PackedLinear for x in linears):
        return False
    if type(mlp) is not PackedSwiGLU:
        return False
    filled_up = any(x.k != x.in_features for x in linears) or 2 * mlp.down.k != mlp.gate_up.n
    same = len({x.bits for x in (*linears, mlp.down, mlp.gate_up)}) == 1 and len({x.eps for x in norms}) == 1
    plain = all(x.bias is None for x in linears) and mlp.gate_up.k == linears[0].k and attention.head_dim % 2 == 0
    return same and plain and not filled_up and attention.head_dim <= steps.MOST_HEAD


def _describe(layer: Any, cache: PagedKVCache) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    q_proj, k_proj, size = attention.q_proj, attention.k_proj, attention.head_dim
    packed: list[PackedMatrix] = [q_proj, k_proj, attention.v_proj, attention.o_proj, mlp.gate_up, mlp.down]
    norms = (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm)
    slots = _slots(cache, attention.index)
    keys, scales = slots.keys_KXH, slots.scales_KX1
    return Layer(
        *(q_proj.bits, q_proj.k, mlp.down.k, q_proj.n // size, k_proj.n // size, size),
        *(x.values.data_ptr() for x in packed),
        *(x.weight.data_ptr() for x in norms),
        norms[0].eps,
        *(keys.data_ptr(), slots.values_KXH.data_ptr(), steps.KV_TYPES[keys.dtype], keys.stride(0), keys.stride(1)),
        *((None, None) if scales is None else (scales[0].data_ptr(), scales[1].data_ptr())),
        0 if scales is None else scales[0].stride(0),
    )


def _slots(cache: PagedKVCache, layer: int) -> steps.Slots:
    return cache.slots(layer, torch.empty(0, dtype=torch.int64))
