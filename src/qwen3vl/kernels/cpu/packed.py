"""Packed int4 and int8 matrices: made, multiplied, looked up. With the C++ kernels, or in plain torch without them.

Shape names: N output features, K input features, M tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.kernels.cpu import plain
from qwen3vl.kernels.cpu.library import library

Epilogue = Literal["none", "gelu_tanh", "gelu", "swiglu"]
_EPILOGUES: dict[Epilogue, int] = {"none": 0, "gelu_tanh": 1, "gelu": 2, "swiglu": 3}


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [N, K] in `bits` bits; `values` is uint8 in the layout of csrc/layout.h."""

    values: Tensor
    bits: Literal[4, 8]
    n: int
    k: int

    def __post_init__(self) -> None:
        assert self.values.numel() == plain.packed_bytes(self.bits, self.n, self.k), (self.values.shape, self.n, self.k)

    @classmethod
    def of(cls, weight_NK: Tensor, bits: Literal[4, 8], importance_K: Tensor | None = None) -> Packed:
        """Quantise float32 or bfloat16 weights; `importance_K` weighs errors by input feature."""
        n, k = weight_NK.shape
        values = torch.empty(plain.packed_bytes(bits, n, k), dtype=torch.uint8)
        pack_into(values, weight_NK, bits, importance_K)
        return cls(values, bits, n, k)

    def matmul(self, x_MK: Tensor, bias_N: Tensor | None = None, epilogue: Epilogue = "none") -> Tensor:
        """x @ w.T + bias, then the epilogue. float32 in and out.

        "swiglu": rows are 16 of gate and 16 of up in turn; out (M, N / 2) = silu(gate) * up, without bias.
        """
        assert x_MK.shape[1] == self.k, (x_MK.shape, self.k)
        kernels = library()
        if kernels is None:
            return _plain_matmul(self, x_MK, bias_N, epilogue)
        x_MK = x_MK.float().contiguous()
        out = torch.empty(x_MK.shape[0], self.n // 2 if epilogue == "swiglu" else self.n)
        bias = None if bias_N is None else bias_N.data_ptr()
        kernels.qwen3vl_matmul(
            self.bits,
            self.values.data_ptr(),
            x_MK.data_ptr(),
            x_MK.shape[0],
            self.n,
            self.k,
            bias,
            _EPILOGUES[epilogue],
            out.data_ptr(),
        )
        return out

    def rows(self, ids_M: Tensor) -> Tensor:
        """-> float32 (M, K): rows dequantised, an embedding's look-up. The ids must lie in the matrix."""
        kernels = library()
        if kernels is None:
            return _plain_rows(self, ids_M)
        assert ids_M.dtype == torch.int64, ids_M.dtype
        ids_M, out = ids_M.contiguous(), torch.empty(len(ids_M), self.k)
        if len(ids_M):
            assert int(ids_M.min()) >= 0 and int(ids_M.max()) < self.n, (ids_M, self.n)
        kernels.qwen3vl_unpack_rows(
            self.bits, self.values.data_ptr(), self.k, ids_M.data_ptr(), len(ids_M), out.data_ptr()
        )
        return out


class _Matrix(ctypes.Structure):
    """Qwen3vlMatrix of csrc/qwen3vl_cpu.h."""

    _fields_ = [("packed", c_void_p), ("n", c_int64), ("bias", c_void_p), ("out", c_void_p)]


def matmul_several(matrices: Sequence[tuple[Packed, Tensor | None]], x_MK: Tensor) -> list[Tensor]:
    """`matmul` of one x with several matrices and their biases: x is quantised once."""
    kernels, first = library(), matrices[0][0]
    assert all((p.k, p.bits) == (first.k, first.bits) for p, _ in matrices) and x_MK.shape[1] == first.k, x_MK.shape
    if kernels is None:
        return [_plain_matmul(packed, x_MK, bias_N, "none") for packed, bias_N in matrices]
    x_MK = x_MK.float().contiguous()
    outs = [torch.empty(x_MK.shape[0], packed.n) for packed, _ in matrices]
    described = (_Matrix * len(matrices))(
        *(
            _Matrix(packed.values.data_ptr(), packed.n, None if bias_N is None else bias_N.data_ptr(), out.data_ptr())
            for (packed, bias_N), out in zip(matrices, outs, strict=True)
        )
    )
    kernels.qwen3vl_matmul_several(first.bits, described, len(matrices), x_MK.data_ptr(), x_MK.shape[0], first.k)
    return outs


def pack_into(values: Tensor, weight_NK: Tensor, bits: int, importance_K: Tensor | None = None) -> None:
    """Quantise `weight_NK` into `values`: all of a packed matrix, or the tiles of 16 rows that these rows are."""
    n, k = weight_NK.shape
    assert values.numel() == plain.packed_bytes(bits, n, k) and values.is_contiguous(), (values.shape, n, k)
    kernels = library()
    if kernels is None:
        values.copy_(plain.pack(weight_NK, bits, importance_K))
        return
    if weight_NK.dtype not in (torch.float32, torch.bfloat16):
        weight_NK = weight_NK.float()
    weight_NK = weight_NK.contiguous()
    importance = None if importance_K is None else importance_K.float().contiguous()
    kernels.qwen3vl_pack(
        bits,
        weight_NK.data_ptr(),
        int(weight_NK.dtype == torch.bfloat16),
        n,
        k,
        None if importance is None else importance.data_ptr(),
        values.data_ptr(),
    )


def _plain_matmul(packed: Packed, x_MK: Tensor, bias_N: Tensor | None, epilogue: Epilogue) -> Tensor:
    """With dequantised weights: slower, and the activations stay exact."""
    out = F.linear(x_MK.float(), plain.unpack(packed.values, packed.bits, packed.n, packed.k), bias_N)
    if epilogue == "swiglu":
        gate, up = out.unflatten(1, (-1, 2, plain.TILE)).unbind(2)
        return (F.silu(gate) * up).flatten(1)
    if epilogue in ("gelu", "gelu_tanh"):
        return F.gelu(out, approximate="tanh" if epilogue == "gelu_tanh" else "none")
    return out


def _plain_rows(packed: Packed, ids_M: Tensor) -> Tensor:
    tile_bytes = packed.k // plain.GROUP * plain.block_bytes(packed.bits)
    tiles = packed.values.reshape(-1, tile_bytes)[ids_M // plain.TILE]
    rows = plain.unpack(tiles.reshape(-1), packed.bits, plain.TILE * len(ids_M), packed.k)
    return rows.reshape(len(ids_M), plain.TILE, packed.k)[torch.arange(len(ids_M)), ids_M % plain.TILE]
