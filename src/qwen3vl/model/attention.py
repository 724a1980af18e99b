"""Attention over packed tokens: causal with a cache for text, per frame for the vision tower.

Shape names: T query tokens, S key tokens, P patches, N query heads, K key/value heads, G = N / K
queries that share a key head, R = T x G, H head size.

On CPUs, without gradients, one call of the C++ kernels does it for all sequences. Their twin, and what does the
rest, is torch: no mask of T x S is ever made; what a sequence has in the cache is read in runs of neighbouring
slots, as they lie; the answers of the runs, and of a chunk's own tokens (causal), are joined by their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.errors import UnsupportedOption
from qwen3vl.kernels.cpu import attention as kernels
from qwen3vl.kernels.cpu.steps import Slots
from qwen3vl.model.cache import BlockTable, PagedKVCache, Run, split_runs, take_runs
from qwen3vl.model.packed_attention import PackedLayout, packed_causal, packed_frames

MAX_RUNS = 8  # of one sequence; one that is scattered wider is gathered into one piece: a copy, but one call


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of one sequence within a packed batch.

    Attributes:
        start, length: of its tokens in the batch.
        past: its tokens that are in the cache already.
        runs: where past and own tokens lie in the cache, in order.
        slots_S: the same as single slots, where there are more than MAX_RUNS runs.
    """

    start: int
    length: int
    past: int = 0
    runs: tuple[Run, ...] = ()
    slots_S: Tensor | None = None

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.length)

    def read(self, cache: PagedKVCache, layer: int, num_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """-> keys and values of the first tokens, k_KSH and v_KSH, in up to MAX_RUNS pieces.

        More where the cache bounds what may be read at a time; each is made when it is asked for.
        """
        if self.slots_S is None:
            for run in split_runs(take_runs(self.runs, num_tokens), cache.max_read):
                yield cache.read(layer, run)
        else:
            for slots in self.slots_S[:num_tokens].split(cache.max_read or num_tokens):
                yield cache.gather(layer, slots)


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """What attention has to know about a packed batch: its sequences lie one behind the other, without gaps.

    Attributes:
        layout: without a cache: how the sequences go through attention together.
        cache, slot_mapping_T: where the tokens' keys and values are kept.
        plan: the segments for the kernels, with a cache.
    """

    segments: tuple[Segment, ...]
    layout: PackedLayout | None = None
    cache: PagedKVCache | None = None
    slot_mapping_T: Tensor | None = None
    plan: kernels.Plan | None = None

    @property
    def num_tokens(self) -> int:
        return self.segments[-1].start + self.segments[-1].length

    def held(self) -> PagedKVCache:
        """-> the cache, of a context that has one."""
        assert self.cache is not None, "this context has no cache"
        return self.cache

    @classmethod
    def pack(cls, lengths: Sequence[int]) -> ForwardContext:
        """Whole sequences, without a cache."""
        segments, start = [], 0
        for length in lengths:
            segments.append(Segment(start, length))
            start += length
        return cls(tuple(segments), PackedLayout.of(lengths))

    @classmethod
    def paged(cls, cache: PagedKVCache, parts: Iterable[tuple[BlockTable, int, int]]) -> ForwardContext:
        """Sequences that continue the cache, each as (block table, tokens in the cache, tokens to come).

        Two sequences of blocks (5, 6) and (2,) of 4 slots, the first with 3 tokens in the cache and 2 to
        come, the second with 0 and 3: slot_mapping_T is 23 24 | 8 9 10.
        """
        segments: list[Segment] = []
        slots = []
        start = 0
        for table, past, length in parts:
            end = past + length
            runs = table.runs(end)
            scattered = torch.from_numpy(table.slots(0, end)) if len(runs) > MAX_RUNS else None
            segments.append(Segment(start, length, past, runs, scattered))
            slots.append(table.slots(past, end))
            start += length
        plan = kernels.Plan.of((s.start, s.length, s.past, s.runs) for s in segments)
        return cls(tuple(segments), None, cache, torch.from_numpy(np.concatenate(slots)), plan)


class Attention(Protocol):
    """A way to compute attention. Scores are scaled by H ** -0.5."""

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        """Each token attends to all of its sequence up to itself. k and v are in the context's cache already (see
        `prepare_heads`). -> out_TNH."""
        ...

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        """The same for whole sequences without a cache; has gradients. -> out_TNH."""
        ...

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        """Patches attend within their own frame only; `layout` is made with pad=False. -> out_PNH."""
        ...


class SdpaAttention:
    """torch's scaled_dot_product_attention; runs everywhere."""

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        cache, out = context.held(), []
        for segment in context.segments:
            q, k, v = q_TNH[segment.slice], k_TKH[segment.slice], v_TKH[segment.slice]
            if segment.length == 1:
                out.append(_attend_one(q, segment.read(cache, layer, segment.past + 1)))
            elif segment.past == 0:
                out.append(_attend_own(q, k, v))
            else:
                out.append(_attend_past_and_own(q, k, v, segment.read(cache, layer, segment.past)))
        return out[0] if len(out) == 1 else torch.cat(out)

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        return packed_causal(q_TNH, k_TKH, v_TKH, layout)

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        return packed_frames(q_PNH, k_PNH, v_PNH, layout)


class KernelAttention(SdpaAttention):
    """The C++ kernels where there are some for the device, the types and a pass without gradients; else torch's own."""

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        slots = kept(context, layer)
        if context.plan is None or not kernels.can_attend(q_TNH, slots.keys_KXH):
            return super().cached(q_TNH, k_TKH, v_TKH, context, layer)
        scales = None if slots.scales_KX1 is None else (slots.scales_KX1[0][..., 0], slots.scales_KX1[1][..., 0])
        return kernels.attend(q_TNH, slots.keys_KXH, slots.values_KXH, context.plan, scales, causal=True)

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        if not kernels.can_attend(q_TNH, k_TKH, v_TKH):
            return super().packed(q_TNH, k_TKH, v_TKH, layout)
        return _by_kernels(q_TNH, k_TKH, v_TKH, layout, causal=True)

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        if not kernels.can_attend(q_PNH, k_PNH, v_PNH):
            return super().frames(q_PNH, k_PNH, v_PNH, layout)
        return _by_kernels(q_PNH, k_PNH, v_PNH, layout, causal=False)


class RoundedAttention(KernelAttention):
    """For a tower with int8 weights, whose products round more than this: `frames` in products of 16 bits, where those
    are faster."""

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        if not kernels.can_attend(q_PNH, k_PNH, v_PNH):
            return super().frames(q_PNH, k_PNH, v_PNH, layout)
        return _by_kernels(q_PNH, k_PNH, v_PNH, layout, causal=False, rounded=True)


def _by_kernels(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout, causal: bool, rounded: bool = False
) -> Tensor:
    plan = kernels.Plan.packed(layout.lengths)
    return kernels.attend(q_TNH, k_TKH.transpose(0, 1), v_TKH.transpose(0, 1), plan, causal=causal, rounded=rounded)


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

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        cache, out = context.held(), []
        for segment in context.segments:
            parts = segment.read(cache, layer, segment.past + segment.length)
            k_1SKH, v_1SKH = (torch.cat(x, 1).transpose(0, 1)[None] for x in zip(*parts, strict=True))
            # With fewer queries than keys its causal mask is aligned to the end, which is what a cache needs.
            out.append(self._flash(q_TNH[segment.slice][None], k_1SKH, v_1SKH, causal=True)[0])
        return out[0] if len(out) == 1 else torch.cat(out)

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        return self._within(q_TNH, k_TKH, v_TKH, layout.lengths, causal=True)

    def frames(self, q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
        return self._within(q_PNH, k_PNH, v_PNH, layout.lengths, causal=False)

    def _within(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
        ends = torch.tensor([0, *lengths], device=q_TNH.device).cumsum(0, dtype=torch.int32)
        longest = max(lengths)
        return self._flash_varlen(q_TNH, k_TKH, v_TKH, ends, ends, longest, longest, causal=causal)


def make_attention(name: str | None) -> Attention:
    """None: the fastest there is. "sdpa": torch's own, always; "flash_attention_2".

    Raises UnsupportedOption for what is unknown or not installed.
    """
    if name is None:
        return KernelAttention()
    if name == "sdpa":
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


def write(context: ForwardContext, layer: int, k_TKH: Tensor, v_TKH: Tensor) -> None:
    """Put the batch's keys and values into its cache."""
    assert context.slot_mapping_T is not None
    context.held().write(layer, context.slot_mapping_T, k_TKH, v_TKH)


def kept(context: ForwardContext, layer: int) -> Slots:
    """Where the batch's keys and values are in its cache."""
    assert context.slot_mapping_T is not None
    return context.held().slots(layer, context.slot_mapping_T)


def _attend_one(q_1NH: Tensor, parts: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """A single token sees everything. -> out_1NH."""
    k_KSH, v_KSH = next(parts)
    q_KGH, second = group_heads(q_1NH, len(k_KSH)), next(parts, None)
    if second is None:
        return ungroup_heads(F.scaled_dot_product_attention(q_KGH[None], k_KSH[None], v_KSH[None])[0], 1)
    return ungroup_heads(_attend_parts(q_KGH, chain([(k_KSH, v_KSH), second], parts))[0], 1)


def _attend_parts(q_KRH: Tensor, parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All rows see all keys, which come part by part. -> (out_KRH, log-sum-exp_KR)."""
    outs: list[Tensor] = []
    sums: list[Tensor] = []
    for k_KSH, v_KSH in parts:
        if len(outs) == MAX_RUNS:  # however many parts: never more than this many answers at a time
            outs, sums = [join(outs, sums)], [torch.stack(sums).logsumexp(0)]
        out_KRH, lse_KR = attend_with_lse(q_KRH, k_KSH, v_KSH)
        outs.append(out_KRH)
        sums.append(lse_KR)
    return join(outs, sums), torch.stack(sums).logsumexp(0)


def _attend_own(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
    """Causal, nothing before. -> out_TNH."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_TNH, k_TKH, v_TKH))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)[0].transpose(0, 1)


def _attend_past_and_own(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, past: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """All of the past is visible to each token, its own chunk causally. -> out_TNH."""
    past_KRH, past_lse_KR = _attend_parts(group_heads(q_TNH, k_TKH.shape[1]), past)
    past_TNH, past_lse_TN1 = (ungroup_heads(x, len(q_TNH)) for x in (past_KRH, past_lse_KR[..., None]))
    repeat = q_TNH.shape[1] // k_TKH.shape[1]
    k_NTH, v_NTH = (x.transpose(0, 1).repeat_interleave(repeat, 0) for x in (k_TKH, v_TKH))
    own_NTH, own_lse_NT = attend_with_lse(q_TNH.transpose(0, 1), k_NTH, v_NTH, causal=True)
    return join([past_TNH, own_NTH.transpose(0, 1)], [past_lse_TN1[..., 0], own_lse_NT.transpose(0, 1)])


def join(outs: Sequence[Tensor], log_sum_exps: Sequence[Tensor]) -> Tensor:
    """Attention over all keys from attention over parts of them: each weighs as its sum of exponentials.

    `outs` have shape (..., H), `log_sum_exps` (...): two parts of sums 1 and 3 weigh 1/4 and 3/4.
    """
    weights = torch.stack(tuple(log_sum_exps)).softmax(0)[..., None]
    total = outs[0].float() * weights[0]
    for out, weight in zip(outs[1:], weights[1:], strict=True):
        total = torch.addcmul(total, out.float(), weight)
    return total.to(outs[0].dtype)


def group_heads(q_TNH: Tensor, num_kv_heads: int) -> Tensor:
    """-> q_KRH with R = T x G: the queries that share a key head become rows, so that keys are read once."""
    return q_TNH.unflatten(1, (num_kv_heads, -1)).transpose(0, 1).flatten(1, 2)


def ungroup_heads(x_KRH: Tensor, num_tokens: int) -> Tensor:
    """-> x_TNH; undoes `group_heads`."""
    return x_KRH.unflatten(1, (num_tokens, -1)).transpose(0, 1).flatten(1, 2)
