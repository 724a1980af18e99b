"""The steps of a layer between its matrix products, each one call of the C++ kernels.

Their plain torch twins are the layers themselves, where `can_run` says no: model/layers.py, model/heads.py.
float32, or bfloat16 rounded wherever torch rounds it. What comes of a row depends on that row alone.

Shape names: R rows, D size of a row, T tokens, N query heads, K key/value heads, H head size, X slots of a cache.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen3vl.kernels.cpu.library import library

_TYPES = (torch.float32, torch.bfloat16)
KV_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # of a cache, in csrc/qwen3vl_cpu.h
MOST_HEAD = 512  # values of a head, in csrc/steps_rows.h


def can_run(x: Tensor, *others: Tensor) -> bool:
    """Whether these can go to the kernels: all on the CPU, of one type that they know, and no gradients."""
    dtype = x.dtype
    if torch.is_grad_enabled() or dtype not in _TYPES or library() is None:
        return False
    return x.is_cpu and all(y.is_cpu and y.dtype == dtype for y in others)


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis."""
    return _norm(x, None, weight_D, None, eps)[1]


def add_rms_norm(x: Tensor, delta: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """-> x + delta, and its RMSNorm."""
    return _norm(x, delta, weight_D, None, eps)


def add_layer_norm(x: Tensor, delta: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """-> x + delta, and its LayerNorm."""
    return _norm(x, delta, weight_D, bias_D, eps)


def swiglu(gate_TI: Tensor, up_TI: Tensor) -> Tensor:
    """silu(gate) * up. Both may be halves of one matrix."""
    gate_TI, up_TI = (x if x.stride(1) == 1 else x.contiguous() for x in (gate_TI, up_TI))
    (rows, size), out = gate_TI.shape, torch.empty(gate_TI.shape, dtype=gate_TI.dtype)
    assert up_TI.shape == gate_TI.shape, (gate_TI.shape, up_TI.shape)
    kernels = _kernels()
    kernels.qwen3vl_swiglu(
        *(_is_bf16(gate_TI), gate_TI.data_ptr(), gate_TI.stride(0), up_TI.data_ptr(), up_TI.stride(0)),
        *(rows, size, out.data_ptr()),
    )
    return out


def gelu_tanh_(x: Tensor) -> Tensor:
    """GELU in its tanh form, in place."""
    assert x.is_contiguous(), x.stride()
    _kernels().qwen3vl_gelu_tanh(_is_bf16(x), x.data_ptr(), x.numel())
    return x


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the tokens' keys and values are kept: as float32, as bfloat16, or as int8 with scales."""

    slots_T: Tensor
    keys_KXH: Tensor
    values_KXH: Tensor
    scales_KX1: tuple[Tensor, Tensor] | None = None


class _Turn(ctypes.Structure):
    """Qwen3vlTurn of csrc/qwen3vl_cpu.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("q", "k", "v")),
        *((name, c_int64) for name in ("is_bf16", "tokens", "q_heads", "kv_heads", "size")),
        *((name, c_int64) for name in ("q_token", "k_token", "v_token")),
        *((name, c_void_p) for name in ("q_weight", "k_weight")),
        ("eps", c_double),
        *((name, c_void_p) for name in ("cosine", "sine")),
        ("angles_are_bf16", c_int64),
        *((name, c_void_p) for name in ("slots", "keys", "values")),
        *((name, c_int64) for name in ("kv_type", "cache_head", "cache_slot")),
        *((name, c_void_p) for name in ("key_scales", "value_scales")),
        ("scale_head", c_int64),
    ]


def can_turn(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, *norms: Tensor) -> bool:
    """Whether `turn_` takes these: the values of a token must be neighbours, and a head not too large."""
    size = q_TNH.shape[2]
    for x in (q_TNH, k_TKH, v_TKH):
        if x.stride()[1:] != (size, 1):
            return False
    return size % 2 == 0 and size <= MOST_HEAD and can_run(q_TNH, k_TKH, v_TKH, *norms)


def turn_(
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    rotary: tuple[Tensor, Tensor],
    norms_H: tuple[Tensor, Tensor, float] | None = None,
    slots: Slots | None = None,
) -> None:
    """Queries and keys in place: normalised (weights of q and k, eps), then turned; keys and values into the cache.

    Angles (cos_TH, sin_TH) of q's type: every product is rounded to it; in float32 only the result is.
    """
    (tokens, q_heads, size), kv_heads = q_TNH.shape, k_TKH.shape[1]
    cosine_TH, sine_TH = rotary
    assert cosine_TH.shape == sine_TH.shape == (tokens, size), (cosine_TH.shape, q_TNH.shape)
    assert cosine_TH.is_contiguous() and sine_TH.is_contiguous() and cosine_TH.dtype == sine_TH.dtype
    turn = _Turn(
        *(q_TNH.data_ptr(), k_TKH.data_ptr(), v_TKH.data_ptr()),
        *(_is_bf16(q_TNH), tokens, q_heads, kv_heads, size, q_TNH.stride(0), k_TKH.stride(0), v_TKH.stride(0)),
        *((norms_H[0].data_ptr(), norms_H[1].data_ptr(), norms_H[2]) if norms_H is not None else (None, None, 0.0)),
        *(cosine_TH.data_ptr(), sine_TH.data_ptr(), _is_bf16(cosine_TH)),
    )
    if slots is not None:
        _set_slots(turn, slots, v_TKH)
    _kernels().qwen3vl_turn(ctypes.byref(turn))


def _set_slots(turn: _Turn, slots: Slots, v_TKH: Tensor) -> None:
    keys, values, scales = slots.keys_KXH, slots.values_KXH, slots.scales_KX1
    assert slots.slots_T.dtype == torch.int64 and slots.slots_T.is_contiguous() and slots.slots_T.numel() == turn.tokens
    assert v_TKH.stride(2) == 1 and v_TKH.stride(1) == turn.size, v_TKH.stride()
    assert keys.shape == values.shape and keys.stride() == values.stride() and keys.stride(2) == 1, keys.stride()
    assert keys.dtype == values.dtype and (keys.dtype == torch.int8) == (scales is not None), (keys.dtype, values.dtype)
    turn.slots, turn.keys, turn.values = slots.slots_T.data_ptr(), keys.data_ptr(), values.data_ptr()
    turn.kv_type = KV_TYPES[keys.dtype]
    turn.cache_head, turn.cache_slot = keys.stride(0), keys.stride(1)
    if scales is not None:
        turn.key_scales, turn.value_scales = scales[0].data_ptr(), scales[1].data_ptr()
        turn.scale_head = scales[0].stride(0)


def _norm(
    x: Tensor, delta: Tensor | None, weight_D: Tensor, bias_D: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """-> what is normalised, and its norm."""
    x = x.contiguous()
    size, out, total = x.shape[-1], torch.empty_like(x), x
    assert weight_D.shape == (size,), (weight_D.shape, x.shape)
    if delta is not None:
        assert delta.shape == x.shape, (delta.shape, x.shape)
        delta, total = delta.contiguous(), torch.empty_like(x)
    _kernels().qwen3vl_norm(
        *(_is_bf16(x), int(bias_D is not None), x.data_ptr(), None if delta is None else delta.data_ptr()),
        *(weight_D.data_ptr(), None if bias_D is None else bias_D.data_ptr(), eps),
        *(x.numel() // size, size, total.data_ptr(), out.data_ptr()),
    )
    return total, out


def _is_bf16(x: Tensor) -> int:
    return int(x.dtype == torch.bfloat16)


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None
    return kernels
