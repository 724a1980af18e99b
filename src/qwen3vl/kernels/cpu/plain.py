"""int4 and int8 matrices in plain torch: what the C++ kernels must equal, to the last bit where they are exact.

Layout (csrc/layout.h): tiles of 16 rows; a tile's groups of 32 columns one behind the other; a group is 16 scales in
float16, then its values plus 8 (int4) or 128 (int8) in lines of 64 bytes.

Shape names: N output features, K input features, G = K / 32 groups, M tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE, GROUP = 16, 32
_TINY = 1e-35  # activations below it are zeros: 127 / x would be infinite


def block_bytes(bits: int) -> int:
    """Bytes of one group of one tile: 288 for int4 (4.5 bits a weight), 544 for int8."""
    return TILE * 2 + TILE * GROUP * bits // 8


def packed_bytes(bits: int, n: int, k: int) -> int:
    return -(-n // TILE) * (k // GROUP) * block_bytes(bits)


def pack(weight_NK: Tensor, bits: int, importance_K: Tensor | None = None) -> Tensor:
    """-> uint8: `weight_NK` (float32 or bfloat16) quantised and packed; N is filled up with zeros."""
    n, k = weight_NK.shape
    assert k % GROUP == 0, k
    rows = -(-n // TILE) * TILE
    x_NGC = torch.zeros(rows, k // GROUP, GROUP)
    x_NGC[:n] = weight_NK.float().reshape(n, -1, GROUP)
    if importance_K is None:
        weight_NGC = x_NGC.abs() + 1e-12
    else:
        weight_NGC = importance_K.float().reshape(-1, GROUP).expand_as(x_NGC)
    scale_NG, q_NGC = _best_scales(x_NGC, weight_NGC, bits)
    return _interleave(scale_NG, (q_NGC + 2 ** (bits - 1)).to(torch.uint8), bits)


def unpack(packed: Tensor, bits: int, n: int, k: int) -> Tensor:
    """-> float32 (N, K), dequantised."""
    scale_NG, q_NGC = parts(packed, bits, n, k)
    return (q_NGC.float() * scale_NG[..., None]).reshape(n, k)


def parts(packed: Tensor, bits: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """-> scales (N, G) in float32 and integers (N, G, 32)."""
    blocks = packed.reshape(-(-n // TILE), k // GROUP, block_bytes(bits))
    scale_TGR = blocks[..., : 2 * TILE].contiguous().view(torch.float16)
    lines = blocks[..., 2 * TILE :].reshape(*blocks.shape[:2], bits, TILE, 4)  # 4 lines of int4, 8 of int8
    if bits == 4:
        lines = torch.cat((lines & 15, lines >> 4), 2)
    q_NGC = lines.permute(0, 3, 1, 2, 4).reshape(-1, k // GROUP, GROUP).int() - 2 ** (bits - 1)
    return scale_TGR.permute(0, 2, 1).reshape(-1, k // GROUP).float()[:n], q_NGC[:n]


def quantize_activations(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """-> int8 values (M, G, 32) and scales (M, G): the largest magnitude of a group becomes 127."""
    x_MGC = x_MK.reshape(len(x_MK), -1, GROUP)
    peak_MG = x_MGC.abs().amax(-1)
    alive_MG = peak_MG > _TINY
    inverse_MG = torch.where(alive_MG, torch.tensor(127.0) / peak_MG, 0)  # 127 / x is 127 * (1 / x) to torch
    return (x_MGC * inverse_MG[..., None]).round(), torch.where(alive_MG, peak_MG / 127, 0)


def matmul(packed: Tensor, bits: int, n: int, x_MK: Tensor) -> Tensor:
    """-> x @ w.T (M, N) as the kernels compute it: exact integer sums of a group, groups added in float32 in order.

    The kernels add a group with one rounding (fma); float64 stands for that here.
    """
    scale_NG, q_NGC = parts(packed, bits, n, x_MK.shape[1])
    x_MGC, scale_MG = quantize_activations(x_MK)
    out_MN = torch.zeros(len(x_MK), n)
    for g in range(scale_NG.shape[1]):
        dot_MN = x_MGC[:, g].double() @ q_NGC[:, g].double().T
        factor_MN = scale_NG[:, g] * scale_MG[:, g, None]
        out_MN = (dot_MN * factor_MN.double() + out_MN.double()).float()
    return out_MN


def _best_scales(x_NGC: Tensor, weight_NGC: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Of some scales the one with the least weighed error (csrc/pack_group.h says which)."""
    limit = 2 ** (bits - 1) - 1
    at = x_NGC.abs().argmax(-1, keepdim=True)
    peak_NG = x_NGC.gather(-1, at)[..., 0]
    alive_NG = peak_NG.abs() > 1e-30
    best_NG, least_NG = torch.zeros_like(peak_NG), torch.full_like(peak_NG, float("inf"))
    best_q = torch.zeros_like(x_NGC)
    steps = [0] if bits == 8 else range(-3, 4)
    for step in steps:
        divisor = torch.tensor(-limit - 1, dtype=torch.float32) + torch.tensor(0.35) * step
        scale_NG = _rounded(peak_NG / divisor if bits == 4 else peak_NG.abs() / limit)
        for _ in range(1 if bits == 8 else 2):
            q, error_NG, fitted_NG = _round_to(x_NGC, weight_NGC, scale_NG, limit)
            better = (error_NG < least_NG) & alive_NG
            least_NG = torch.where(better, error_NG, least_NG)
            best_NG = torch.where(better, scale_NG, best_NG)
            best_q = torch.where(better[..., None], q, best_q)
            scale_NG = _rounded(fitted_NG)
    return best_NG, best_q


def _round_to(x: Tensor, weight: Tensor, scale_NG: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> integers, weighed squared error, and the least-squares scale for these integers."""
    inverse_NG = torch.where(scale_NG != 0, 1 / scale_NG, 0)
    q = (x * inverse_NG[..., None]).round().clamp(-limit - 1, limit)
    off, weighed = x - q * scale_NG[..., None], weight * q
    xq, qq = _add_lanes(weighed * x), _add_lanes(weighed * q)
    return q, _add_lanes(weight * off * off), torch.where(qq > 0, xq / qq, 0)


def _add_lanes(values: Tensor) -> Tensor:
    """Sum over the last axis of 32 in the kernels' order: eight lanes, then the lanes in pairs."""
    lane = values.unflatten(-1, (4, 8))
    s = ((lane[..., 0, :] + lane[..., 1, :]) + lane[..., 2, :]) + lane[..., 3, :]
    return ((s[..., 0] + s[..., 4]) + (s[..., 2] + s[..., 6])) + ((s[..., 1] + s[..., 5]) + (s[..., 3] + s[..., 7]))


def _rounded(scale: Tensor) -> Tensor:
    return scale.clamp(-65504, 65504).half().float()


def _interleave(scale_NG: Tensor, q_NGC: Tensor, bits: int) -> Tensor:
    tiles, groups = len(q_NGC) // TILE, q_NGC.shape[1]
    lines = q_NGC.reshape(tiles, TILE, groups, 8, 4).permute(0, 2, 3, 1, 4)  # (tile, group, line, row, column)
    if bits == 4:
        lines = lines[:, :, :4] | lines[:, :, 4:] << 4
    scales = scale_NG.reshape(tiles, TILE, groups).permute(0, 2, 1).half().contiguous().view(torch.uint8)
    return torch.cat((scales, lines.reshape(tiles, groups, -1)), -1).reshape(-1)
