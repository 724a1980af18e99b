"""Whole decoder layers with packed weights in one call: how they are described to csrc/layers.cpp."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p

from qwen3vl.kernels.cpu.library import library


class Layer(ctypes.Structure):
    """Qwen3vlLayer of csrc/qwen3vl_cpu.h: a layer's weights, and where its keys and values are kept."""

    _fields_ = [
        *((name, c_int64) for name in ("bits", "hidden", "inner", "heads", "kv_heads", "size")),
        *((name, c_void_p) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up", "down")),
        *((name, c_void_p) for name in ("input_norm", "post_norm", "q_norm", "k_norm")),
        ("eps", c_double),
        *((name, c_void_p) for name in ("keys", "values")),
        *((name, c_int64) for name in ("kv_type", "cache_head", "cache_slot")),
        *((name, c_void_p) for name in ("key_scales", "value_scales")),
        ("scale_head", c_int64),
    ]


class Pass(ctypes.Structure):
    """Qwen3vlPass: the tokens of a pass, which are changed in place, and where their sequences lie."""

    _fields_ = [
        ("x", c_void_p),
        ("tokens", c_int64),
        *((name, c_void_p) for name in ("cosine", "sine", "slots")),
        ("num_sequences", c_int64),
        *((name, c_void_p) for name in ("sequences", "runs")),
    ]


def run_layers(layers: ctypes.Array[Layer], tokens: Pass) -> None:
    """All of `layers`, one after the other."""
    kernels = library()
    assert kernels is not None
    kernels.qwen3vl_layers(layers, len(layers), ctypes.byref(tokens))
