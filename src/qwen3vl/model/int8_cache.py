"""Keys and values as 8-bit numbers: about half of bfloat16's memory, a quarter of float32's.

One scale for each token and head: x is kept as round(x / s) with s = max|x| / 127, so that no value is
off by more than s / 2. The head (0.5, -1.27, 0.004) has s = 0.01 and is kept as (50, -127, 0).

Shape names: as in cache.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qwen3vl.config import TextConfig
from qwen3vl.kernels.cpu.steps import Slots
from qwen3vl.model.cache import PagedKVCache, Run

_LEAST_SCALE = 1e-30  # of a head that is all zeros


class Int8KVCache(PagedKVCache):
    """PagedKVCache with a byte for each value and a float32 scale for each token and head.

    What is read is of `dtype`, and a copy: `max_read` bounds how much of it there is at a time.
    """

    def __init__(
        self, config: TextConfig, num_blocks: int, block_size: int, dtype: torch.dtype, devices: Sequence[torch.device]
    ) -> None:
        super().__init__(config, num_blocks, block_size, dtype, devices, kept=torch.int8)
        shape = (config.num_key_value_heads, num_blocks * block_size, 1)
        with torch.inference_mode(False):
            self._key_scales_KX1 = [torch.empty(shape, device=device) for device in devices]
            self._value_scales_KX1 = [torch.empty(shape, device=device) for device in devices]

    def write(self, layer: int, slots_T: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> None:
        slots_T = slots_T.to(k_TKH.device)
        for x_TKH, (values_KXH, scales_KX1) in zip((k_TKH, v_TKH), self._pools(layer), strict=True):
            q_TKH, scale_TK1 = quantize(x_TKH)
            values_KXH.index_copy_(1, slots_T, q_TKH.transpose(0, 1))
            scales_KX1.index_copy_(1, slots_T, scale_TK1.transpose(0, 1))

    def slots(self, layer: int, slots_T: Tensor) -> Slots:
        scales = self._key_scales_KX1[layer], self._value_scales_KX1[layer]
        return Slots(slots_T, self._keys_KXH[layer], self._values_KXH[layer], scales)

    def read(self, layer: int, run: Run) -> tuple[Tensor, Tensor]:
        start, end = run
        k, v = (self._widen(x[:, start:end], s[:, start:end]) for x, s in self._pools(layer))
        return k, v

    def gather(self, layer: int, slots_S: Tensor) -> tuple[Tensor, Tensor]:
        pools = self._pools(layer)
        slots_S = slots_S.to(pools[0][0].device)
        k, v = (self._widen(x.index_select(1, slots_S), s.index_select(1, slots_S)) for x, s in pools)
        return k, v

    def _pools(self, layer: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """-> (values, scales) of keys and of values."""
        return (
            (self._keys_KXH[layer], self._key_scales_KX1[layer]),
            (self._values_KXH[layer], self._value_scales_KX1[layer]),
        )

    def _widen(self, q_KSH: Tensor, scale_KS1: Tensor) -> Tensor:
        return (q_KSH * scale_KS1).to(self._dtype)

    def _all_pools(self) -> tuple[Tensor, ...]:
        return (*super()._all_pools(), *self._key_scales_KX1, *self._value_scales_KX1)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """-> (int8 of x's shape, float32 scales of shape (..., 1)), over the last axis."""
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) / 127).clamp(min=_LEAST_SCALE)
    return (wide / scale).round().clamp(-127, 127).to(torch.int8), scale
