"""Rotary position embeddings: interleaved MRoPE with YaRN for text, 2-D for the vision tower.

Shape names: T tokens, P patches, N heads, H head size, F = H / 2 frequencies.

Which axis does frequency i turn with? With mrope_section (t, h, w) = (3, 2, 2) and F = 8:

    i        0  1  2  3  4  5  6  7
    axis     T  H  W  T  H  W  T  T      H: i % 3 == 1 and i < 3h;  W: i % 3 == 2 and i < 3w;  else T

The official section (24, 20, 20) gives time 24 of 64: every third up to 57, and the tail 60..63.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qwen3vl.config import RopeConfig


def text_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """-> (inverse frequencies_F in float32, factor on cos and sin). YaRN (arXiv 2309.00071) where configured."""
    powers_F = rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.original_max_positions is None:
        return 1.0 / powers_F, 1.0
    attention_factor = rope.attention_factor
    if attention_factor is None:
        attention_factor = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
    low, high = _yarn_range(rope, head_dim, rope.original_max_positions)
    ramp_F = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep_F = 1 - ramp_F  # 1: the frequency stays, 0: it is stretched by the factor
    return 1.0 / (rope.factor * powers_F) * (1 - keep_F) + 1.0 / powers_F * keep_F, attention_factor


def _yarn_range(rope: RopeConfig, head_dim: int, original: int) -> tuple[float, float]:
    """The frequency indices between which YaRN goes over from keeping to stretching."""

    def index_of(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = index_of(rope.beta_fast), index_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    return low, high + 0.001 if low == high else high


def mrope_axes(mrope_section: tuple[int, int, int], num_frequencies: int) -> Tensor:
    """The axis (0 time, 1 height, 2 width) of each frequency, int64 of shape (F,). See the top of the file."""
    axes_F = torch.zeros(num_frequencies, dtype=torch.int64)
    for axis in (1, 2):
        axes_F[axis : 3 * mrope_section[axis] : 3] = axis
    return axes_F


def text_rotary(
    positions_3T: Tensor, frequencies_F: Tensor, axes_F: Tensor, scale: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """-> cos_TH, sin_TH in `dtype`; angles are computed in float32."""
    angles_TF = positions_3T.float()[axes_F].T * frequencies_F
    cos_TF, sin_TF = angles_TF.cos() * scale, angles_TF.sin() * scale
    return torch.cat((cos_TF, cos_TF), -1).to(dtype), torch.cat((sin_TF, sin_TF), -1).to(dtype)


def vision_rotary(rows_P: Tensor, columns_P: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """-> cos_PH, sin_PH in float32. The first half of the frequencies turns with the row, the second with
    the column."""
    half = head_dim // 2
    frequencies = 1.0 / theta ** (torch.arange(0, half, 2, dtype=torch.float32, device=rows_P.device) / half)
    angles_PF = torch.cat((rows_P[:, None] * frequencies, columns_P[:, None] * frequencies), -1)
    cos_PF, sin_PF = angles_PF.cos(), angles_PF.sin()
    return torch.cat((cos_PF, cos_PF), -1), torch.cat((sin_PF, sin_PF), -1)


def rotate(x_TNH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) by its angle. The result has the dtype of the product."""
    first, second = x_TNH.chunk(2, dim=-1)
    return x_TNH * cos_TH[:, None] + torch.cat((-second, first), -1) * sin_TH[:, None]
