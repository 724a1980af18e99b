"""Attention over packed tokens: causal with a cache for text, per frame for the vision tower.

Shape names: T query tokens, S key tokens, P patches, N query heads, K key/value heads, G = N / K
queries that share a key head, H head size.

No mask of T x S is ever made. A chunk of a prompt that continues a cache attends in two parts, to the
past (all of it visible) and to itself (causal), which are joined by their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.errors import UnsupportedOption
from qwen3vl.model.cache import KVCache
from qwen3vl.model.packed_attention import PackedLayout, packed_causal, packed_frames


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of one sequence within a packed batch, and the cache that they continue (None: no cache)."""

    start: int
    length: int
    cache: KVCache | None = None

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """What attention has to know about a packed batch: its sequences lie one behind the other, without gaps.

    `layout` is there where no sequence has a cache: how they go through attention together.
    """

    segments: tuple[Segment, ...]
    layout: PackedLayout | None = None

    @property
    def num_tokens(self) -> int:
        return self.segments[-1].start + self.segments[-1].length

    @classmethod
    def pack(cls, lengths: Sequence[int], caches: Sequence[KVCache] | None = None) -> ForwardContext:
        segments, start = [], 0
        for i, length in enumerate(lengths):
            segments.append(Segment(start, length, caches[i] if caches else None))
            start += length
        return cls(tuple(segments), None if caches else PackedLayout.of(lengths))


class Attention(Protocol):
    """A way to compute attention. Scores are scaled by H ** -0.5."""

    def causal(self, q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor) -> Tensor:
        """The last T of S tokens attend to all tokens up to their own. -> out_TNH."""
        ...

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        """`causal` for sequences one behind the other, none with a past; has gradients. -> out_TNH."""
        ...

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        """Patches attend within their own frame only; `layout` is made with pad=False. -> out_PNH."""
        ...


class SdpaAttention:
    """torch's scaled_dot_product_attention; runs everywhere."""

    def causal(self, q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor) -> Tensor:
        num_tokens, num_past = len(q_TNH), k_KSH.shape[1] - len(q_TNH)
        if num_tokens == 1 or num_past == 0:
            return _causal_self(q_TNH, k_KSH, v_KSH)
        past_out, past_lse = attend_with_lse(_group(q_TNH, len(k_KSH)), k_KSH[:, :num_past], v_KSH[:, :num_past])
        past_out_TNH, past_lse_TN1 = _ungroup(past_out, num_tokens), _ungroup(past_lse[..., None], num_tokens)
        repeat = q_TNH.shape[1] // len(k_KSH)
        own_k_NTH, own_v_NTH = (x[:, num_past:].repeat_interleave(repeat, 0) for x in (k_KSH, v_KSH))
        own_out, own_lse = attend_with_lse(q_TNH.transpose(0, 1), own_k_NTH, own_v_NTH, causal=True)
        own_out_TNH, own_lse_TN1 = own_out.transpose(0, 1), own_lse[..., None].transpose(0, 1)
        weight = torch.sigmoid(past_lse_TN1 - own_lse_TN1)  # = e^past / (e^past + e^own)
        return torch.lerp(own_out_TNH.float(), past_out_TNH.float(), weight).to(q_TNH.dtype)

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        return packed_causal(q_TNH, k_TKH, v_TKH, layout)

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        return packed_frames(q_PNH, k_PNH, v_PNH, layout)


class FlashAttention2:
    """The flash-attn package, for CUDA devices and 16-bit types."""

    def __init__(self) -> None:
        try:
            from flash_attn import flash_attn_func, flash_attn_varlen_func
        except ImportError as error:
            raise UnsupportedOption(
                "attention 'flash_attention_2' needs the flash-attn package, which is not installed: "
                "install it, or leave the option out (torch's own attention is used)"
            ) from error
        self._flash, self._flash_varlen = flash_attn_func, flash_attn_varlen_func

    def causal(self, q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor) -> Tensor:
        k_SKH, v_SKH = k_KSH.transpose(0, 1), v_KSH.transpose(0, 1)
        # With fewer queries than keys its causal mask is aligned to the end, which is what a cache needs.
        return self._flash(q_TNH[None], k_SKH[None], v_SKH[None], causal=True)[0]

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        return self._within(q_TNH, k_TKH, v_TKH, layout.lengths, causal=True)

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        return self._within(q_PNH, k_PNH, v_PNH, layout.lengths, causal=False)

    def _within(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
        ends = torch.tensor([0, *lengths], device=q_TNH.device).cumsum(0, dtype=torch.int32)
        longest = max(lengths)
        return self._flash_varlen(q_TNH, k_TKH, v_TKH, ends, ends, longest, longest, causal=causal)


def make_attention(name: str | None) -> Attention:
    """None or "sdpa", or "flash_attention_2". Raises UnsupportedOption for what is unknown or not installed."""
    if name in (None, "sdpa"):
        return SdpaAttention()
    if name == "flash_attention_2":
        return FlashAttention2()
    raise UnsupportedOption(f"attention {name!r} is not known: choose sdpa or flash_attention_2")


def attend_with_lse(q_NTH: Tensor, k_NSH: Tensor, v_NSH: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """-> (out_NTH, log-sum-exp_NT in float32). Here query and key heads are the same N; causal needs T == S."""
    if q_NTH.device.type == "cpu" and q_NTH.dtype in (torch.float32, torch.bfloat16):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_NTH[None], k_NSH[None], v_NSH[None], 0.0, causal
        )
        return out[0], lse.reshape(q_NTH.shape[:2]).float()
    return attend_with_lse_plain(q_NTH, k_NSH, v_NSH, causal)


def attend_with_lse_plain(
    q_NTH: Tensor, k_NSH: Tensor, v_NSH: Tensor, causal: bool = False, block: int = 2048
) -> tuple[Tensor, Tensor]:
    """`attend_with_lse` in plain torch, with a running softmax over blocks of keys (arXiv 2112.05682)."""
    num_heads, num_queries, size = q_NTH.shape
    q = q_NTH.float() * size**-0.5
    out = torch.zeros(num_heads, num_queries, size, device=q.device)
    total = torch.zeros(num_heads, num_queries, device=q.device)
    peak = torch.full((num_heads, num_queries), float("-inf"), device=q.device)
    for start in range(0, k_NSH.shape[1], block):
        scores = q @ k_NSH[:, start : start + block].float().transpose(1, 2)
        if causal:
            rows = torch.arange(num_queries, device=q.device)[:, None]
            columns = torch.arange(start, start + scores.shape[2], device=q.device)
            scores = scores.masked_fill(columns > rows, float("-inf"))
        new_peak = torch.maximum(peak, scores.amax(-1))
        rescale = torch.exp(peak - new_peak)
        weights = torch.exp(scores - new_peak[..., None])
        out = out * rescale[..., None] + weights @ v_NSH[:, start : start + block].float()
        total = total * rescale + weights.sum(-1)
        peak = new_peak
    return (out / total[..., None]).to(q_NTH.dtype), peak + total.log()


def _causal_self(q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor) -> Tensor:
    """No past, or a single token that sees everything."""
    if len(q_TNH) == 1:
        out = F.scaled_dot_product_attention(_group(q_TNH, len(k_KSH))[None], k_KSH[None], v_KSH[None])
        return _ungroup(out[0], 1)
    q_NTH = q_TNH.transpose(0, 1)
    out = F.scaled_dot_product_attention(
        q_NTH[None], k_KSH[None], v_KSH[None], is_causal=True, enable_gqa=q_NTH.shape[0] != k_KSH.shape[0]
    )
    return out[0].transpose(0, 1)


def _group(q_TNH: Tensor, num_kv_heads: int) -> Tensor:
    """-> q_KRH with R = T x G: the queries that share a key head become rows, so that keys are read once."""
    return q_TNH.unflatten(1, (num_kv_heads, -1)).transpose(0, 1).flatten(1, 2)


def _ungroup(x_KRH: Tensor, num_tokens: int) -> Tensor:
    """-> x_TNH; undoes `_group`."""
    return x_KRH.unflatten(1, (num_tokens, -1)).transpose(0, 1).flatten(1, 2)
