"""Products with unpacked weights on CPUs: few tokens at the speed of reading the weights, bfloat16 without emulation.

torch's products of 2 to 32 rows take several times as long as one row, where the time to read the weights would do;
and in bfloat16, on CPUs that have no instructions for it, they run at a sixth of float32's speed.

Shape names: M tokens, N output features, K input features.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.kernels.cpu.library import library

MOST_TOKENS = 32  # with more, torch's float32 product is as fast
PIECE_WEIGHTS = 1 << 24  # bfloat16 weights that are widened at a time: 64 MB
FEWEST_WEIGHTS = 1 << 18  # smaller matrices are in the cache, and calling costs more than it saves


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """`F.linear`, for float32 and bfloat16; sums are taken in float32. Gradients go through torch's own."""
    if weight_NK.device.type != "cpu" or weight_NK.numel() < FEWEST_WEIGHTS or _wants_gradient(x, weight_NK):
        return F.linear(x, weight_NK, bias_N)
    num_tokens = x.numel() // x.shape[-1]
    if num_tokens <= MOST_TOKENS and (out := _few_rows(x, weight_NK, bias_N)) is not None:
        return out
    if weight_NK.dtype == torch.bfloat16 and bfloat16_is_emulated():
        out = _widened(x, weight_NK, bias_N)
        return _in_float32(x, weight_NK, bias_N) if out is None else out
    return F.linear(x, weight_NK, bias_N)


@cache
def bfloat16_is_emulated() -> bool:
    """Whether this CPU lacks the instructions that torch multiplies bfloat16 with."""
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _few_rows(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor | None:
    """None where there is no kernel for this."""
    kernels = library()
    if kernels is None or weight_NK.dtype not in (torch.float32, torch.bfloat16) or not weight_NK.is_contiguous():
        return None
    n, k = weight_NK.shape
    x_MK = x.reshape(-1, k).float().contiguous()
    out_MN = torch.empty(x_MK.shape[0], n)
    is_bf16 = int(weight_NK.dtype == torch.bfloat16)
    if kernels.qwen3vl_rows(weight_NK.data_ptr(), is_bf16, x_MK.data_ptr(), x_MK.shape[0], n, k, out_MN.data_ptr()):
        return None
    if bias_N is not None:
        out_MN += bias_N
    return out_MN.to(x.dtype).view(*x.shape[:-1], n)


def _widened(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor | None:
    """The product in float32 with the weights widened in the cache; None where there is no kernel for this."""
    kernels = library()
    if kernels is None or not weight_NK.is_contiguous() or not x.dtype == weight_NK.dtype == torch.bfloat16:
        return None
    n, k = weight_NK.shape
    x_MK = x.reshape(-1, k).float().contiguous()
    out_MN = torch.empty(x_MK.shape[0], n, dtype=torch.bfloat16)
    bias = None if bias_N is None else bias_N.to(torch.bfloat16).contiguous()
    bias_at = None if bias is None else bias.data_ptr()
    sizes = x_MK.shape[0], n, k
    if kernels.qwen3vl_wide(weight_NK.data_ptr(), x_MK.data_ptr(), *sizes, bias_at, out_MN.data_ptr()):
        return None
    return out_MN.view(*x.shape[:-1], n)


def _in_float32(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """The twin of `_widened` in plain torch: weights are widened piece by piece."""
    wide, step = x.float(), max(1, PIECE_WEIGHTS // weight_NK.shape[1])
    out = x.new_empty(*x.shape[:-1], len(weight_NK))
    for first in range(0, len(weight_NK), step):
        bias = None if bias_N is None else bias_N[first : first + step].float()
        out[..., first : first + step] = F.linear(wide, weight_NK[first : first + step].float(), bias)
    return out


def _wants_gradient(x: Tensor, weight_NK: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight_NK.requires_grad)
