"""Attention of a whole step in one call of the C++ kernels: all sequences, keys and values where they lie.

What is computed, to the bit: csrc/attention.cpp. A row's result depends on its own query and keys alone.

Shape names: T query tokens, X slots of a pool of keys and values, N query heads, K key/value heads, H head size,
S sequences, R runs of neighbouring slots.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from ctypes import c_double, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain

import numpy as np
import torch
from torch import Tensor

from qwen3vl.kernels.cpu.library import library
from qwen3vl.kernels.cpu.steps import KV_TYPES

Run = tuple[int, int]  # slots from .. to, the second not included


class _Call(ctypes.Structure):
    """Qwen3vlAttention of csrc/qwen3vl_cpu.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("q", "out")),
        *((name, c_int64) for name in ("type", "q_token", "q_head", "out_token", "out_head")),
        *((name, c_void_p) for name in ("k", "v")),
        *((name, c_int64) for name in ("kv_type", "k_slot", "k_head", "v_slot", "v_head")),
        *((name, c_void_p) for name in ("k_scale", "v_scale")),
        *((name, c_int64) for name in ("scale_head", "num_heads", "num_kv_heads", "size", "num_sequences")),
        *((name, c_void_p) for name in ("sequences", "runs")),
        ("causal", c_int64),
        ("scale", c_double),
    ]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the sequences of a step lie: made once, used by every layer.

    A sequence of 2 new tokens behind 3, in slots 20 .. 24 and 8: sequences_S5 (0, 2, 3, 0, 2), runs_R2 (0, 20), (4, 8).

    Attributes:
        sequences_S5: first row of q, new tokens, tokens before them, first run, number of runs.
        runs_R2: the first token of the run, counted in its sequence, and that token's slot.
        num_tokens: new tokens of all sequences.
    """

    sequences_S5: np.ndarray
    runs_R2: np.ndarray
    num_tokens: int

    @classmethod
    def of(cls, parts: Iterable[tuple[int, int, int, Sequence[Run]]]) -> Plan:
        """Sequences as (first row of q, new tokens, tokens before them, runs of slots of all of these)."""
        sequences: list[tuple[int, int, int, int, int]] = []
        runs: list[tuple[int, int]] = []
        for start, length, past, slots in parts:
            first, token = len(runs), 0
            for low, high in slots:
                runs.append((token, low))
                token += high - low
            assert token == past + length and length > 0, (token, past, length)
            sequences.append((start, length, past, first, len(runs) - first))
        return cls(_int64(sequences, 5), _int64(runs, 2), sum(each[1] for each in sequences))

    @staticmethod
    @lru_cache(maxsize=16)
    def packed(lengths: tuple[int, ...]) -> Plan:
        """Whole sequences one behind the other, whose keys lie like their queries."""
        ends = accumulate(lengths)
        parts = zip(ends, lengths, strict=True)
        return Plan.of((end - length, length, 0, ((end - length, end),)) for end, length in parts)


def can_attend(q_TNH: Tensor, *keys: Tensor) -> bool:
    """Whether there is a kernel for these: on a CPU that it was written for, in float32 or bfloat16, without gradients.

    QWEN3VL_CPU_KERNELS=plain has the portable one used too, which is slower than torch.
    """
    kernels = library()
    if kernels is None or q_TNH.dtype not in (torch.float32, torch.bfloat16):
        return False
    if kernels.qwen3vl_isa() == b"plain" and os.environ.get("QWEN3VL_CPU_KERNELS") != "plain":
        return False
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q_TNH, *keys))
    return not wants_gradient and all(x.device.type == "cpu" and x.dtype in KV_TYPES for x in (q_TNH, *keys))


def attend(
    q_TNH: Tensor,
    k_KXH: Tensor,
    v_KXH: Tensor,
    plan: Plan,
    scales: tuple[Tensor, Tensor] | None = None,
    *,
    causal: bool,
    rounded: bool = False,
) -> Tensor:
    """softmax(q k / sqrt(H)) v. -> out_TNH, of q's type.

    Keys and values are views of any strides of float32, bfloat16 or int8; these with their `scales`, two of float32
    (K, X). With `causal` a token sees its sequence up to itself, else all of it. `rounded` allows the way of
    csrc/attention_words.h, which is faster on some CPUs and off by some 4e-4.
    """
    (num_tokens, num_heads, size), num_kv_heads = q_TNH.shape, len(k_KXH)
    assert num_heads % num_kv_heads == 0 and k_KXH.shape == v_KXH.shape, (q_TNH.shape, k_KXH.shape, v_KXH.shape)
    assert k_KXH.shape[2] == size and k_KXH.dtype == v_KXH.dtype, (q_TNH.shape, k_KXH.shape, k_KXH.dtype, v_KXH.dtype)
    assert (k_KXH.dtype == torch.int8) == (scales is not None), k_KXH.dtype
    assert plan.num_tokens == num_tokens, (plan.num_tokens, num_tokens)
    q_TNH, k_KXH, v_KXH = (x if x.stride(2) == 1 else x.contiguous() for x in (q_TNH, k_KXH, v_KXH))
    out_TNH = torch.empty(num_tokens, num_heads, size, dtype=q_TNH.dtype)
    k_scale, v_scale = scales if scales is not None else (None, None)
    assert k_scale is None or (k_scale.stride() == v_scale.stride() and k_scale.stride(1) == 1)  # type: ignore[union-attr]
    call = _Call(
        *(q_TNH.data_ptr(), out_TNH.data_ptr()),
        *(KV_TYPES[q_TNH.dtype], q_TNH.stride(0), q_TNH.stride(1), num_heads * size, size),
        *(k_KXH.data_ptr(), v_KXH.data_ptr()),
        *(KV_TYPES[k_KXH.dtype], k_KXH.stride(1), k_KXH.stride(0), v_KXH.stride(1), v_KXH.stride(0)),
        *(None if x is None else x.data_ptr() for x in (k_scale, v_scale)),
        *(0 if k_scale is None else k_scale.stride(0), num_heads, num_kv_heads, size, len(plan.sequences_S5)),
        *(plan.sequences_S5.ctypes.data, plan.runs_R2.ctypes.data),
        *(int(causal), size**-0.5),
    )
    kernels = library()
    assert kernels is not None
    if not rounded or kernels.qwen3vl_attention_words(ctypes.byref(call)):
        kernels.qwen3vl_attention(ctypes.byref(call))
    return out_TNH


def _int64(rows: Sequence[tuple[int, ...]], width: int) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * width).reshape(-1, width)
