"""Queries, keys and values on their way from the projections to attention: normalised, turned, kept.

On CPUs without gradients one call of the kernels does it all; plain torch is its twin, and does the rest.

Shape names: T tokens, P patches, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

from torch import Tensor

from qwen3vl.kernels.cpu import steps
from qwen3vl.model.attention import ForwardContext, write
from qwen3vl.model.layers import RMSNorm
from qwen3vl.model.rope import rotate

Heads = tuple[Tensor, Tensor, Tensor]  # q_TNH, k_TKH, v_TKH
Rotary = tuple[Tensor, Tensor]  # cos_TH, sin_TH


def prepare_heads(
    heads: Heads, rotary: Rotary, norms: tuple[RMSNorm, RMSNorm], context: ForwardContext, layer: int
) -> Heads:
    """Each head of q and k is normalised, then turned; keys and values go into the context's cache, if it has one.

    What comes in may be changed in place.
    """
    q_TNH, k_TKH, v_TKH = heads
    q_norm, k_norm = norms
    ordinary = isinstance(q_norm, RMSNorm) and isinstance(k_norm, RMSNorm)  # they are modules: anybody may change them
    if ordinary and steps.can_turn(*heads, q_norm.weight, k_norm.weight):
        slots = None
        if context.cache is not None and context.slot_mapping_T is not None:
            slots = context.cache.slots(layer, context.slot_mapping_T)
        steps.turn_(*heads, rotary, (q_norm.weight, k_norm.weight, q_norm.eps), slots)
        return heads
    q_TNH, k_TKH = rotate(q_norm(q_TNH), *rotary), rotate(k_norm(k_TKH), *rotary)
    if context.cache is not None:
        write(context, layer, k_TKH, v_TKH)
    return q_TNH, k_TKH, v_TKH


def turn_patches(heads_P3NH: Tensor, rotary: Rotary) -> Heads:
    """-> q_PNH, k_PNH, v_PNH of the vision tower; queries and keys are turned in float32. May change what comes in."""
    q_PNH, k_PNH, v_PNH = heads_P3NH.unbind(1)
    if steps.can_turn(q_PNH, k_PNH, v_PNH):
        steps.turn_(q_PNH, k_PNH, v_PNH, rotary)
        return q_PNH, k_PNH, v_PNH
    q_PNH, k_PNH = (rotate(x.float(), *rotary).to(x.dtype) for x in (q_PNH, k_PNH))
    return q_PNH, k_PNH, v_PNH
