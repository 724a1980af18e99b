"""Attention against its definition: softmax(q k / sqrt(H)) v, written out with a mask."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qwen3vl.errors import UnsupportedOption
from qwen3vl.model.attention import (
    MAX_RUNS,
    Attention,
    FlashAttention2,
    ForwardContext,
    KernelAttention,
    SdpaAttention,
    attend_with_lse,
    attend_with_lse_plain,
    join,
    make_attention,
    write,
)
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.packed_attention import PackedLayout
from tests import models


def written_out(q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor) -> tuple[Tensor, Tensor]:
    """-> (out_TNH, log-sum-exp_NT): the last T of S tokens, each up to its own."""
    num_tokens, heads, size = q_TNH.shape
    repeat, length = heads // len(k_KSH), k_KSH.shape[1]
    k, v = (x.double().repeat_interleave(repeat, 0) for x in (k_KSH, v_KSH))
    scores = torch.einsum("tnh,nsh->nts", q_TNH.double(), k) * size**-0.5
    hidden = torch.arange(length)[None] > torch.arange(length - num_tokens, length)[:, None]
    scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("nts,nsh->tnh", scores.softmax(-1), v), scores.logsumexp(-1)


def random(num_tokens: int, length: int, heads: int, kv_heads: int, size: int, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return (
        2 * torch.randn(num_tokens, heads, size),
        torch.randn(kv_heads, length, size),
        torch.randn(kv_heads, length, size),
    )


def new_cache(kv_heads: int, size: int, num_blocks: int, block_size: int, dtype: torch.dtype) -> PagedKVCache:
    text = models.small_config().text
    config = replace(text, num_hidden_layers=1, num_key_value_heads=kv_heads, head_dim=size)
    return PagedKVCache(config, num_blocks, block_size, dtype, [torch.device("cpu")])


def through_cache(
    attention: Attention, q_TNH: Tensor, k_KSH: Tensor, v_KSH: Tensor, blocks: Sequence[int] = (1, 0), size: int = 0
) -> Tensor:
    """The last T of S tokens as one pass over a cache whose blocks are `blocks`; by default two swapped halves."""
    past, length = k_KSH.shape[1] - len(q_TNH), k_KSH.shape[1]
    size = size or length // 2 + 1
    table, k_SKH, v_SKH = BlockTable(size, blocks), k_KSH.transpose(0, 1), v_KSH.transpose(0, 1)
    cache = new_cache(len(k_KSH), q_TNH.shape[2], max(blocks) + 1, size, q_TNH.dtype)
    cache.write(0, torch.from_numpy(table.slots(0, past)), k_SKH[:past], v_SKH[:past])
    context = ForwardContext.paged(cache, [(table, past, len(q_TNH))])
    write(context, 0, k_SKH[past:], v_SKH[past:])
    out = attention.cached(q_TNH, k_SKH[past:], v_SKH[past:], context, 0)
    held = cache.gather(0, torch.from_numpy(table.slots(0, length)))
    assert torch.equal(held[0], k_KSH) and torch.equal(held[1], v_KSH)
    return out


kinds = pytest.mark.parametrize("kind", [SdpaAttention, KernelAttention])  # in float16 both are torch

SHAPES = [(1, 1, 4, 4, 16), (1, 9, 4, 2, 16), (7, 7, 6, 2, 36), (5, 12, 4, 1, 32), (33, 90, 8, 4, 128), (2, 3, 2, 2, 8)]


LAYOUTS = [  # blocks, block size: one run; two; as many as are joined; more, which are gathered
    ((0,), 90),
    ((1, 2, 0), 40),
    (tuple(range(2 * MAX_RUNS - 2, -1, -2)), 12),
    (tuple(range(89, -1, -1)), 1),
]


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_causal(kind: type[SdpaAttention], shape: tuple[int, ...]) -> None:
    q, k, v = random(*shape)
    expected = written_out(q, k, v)[0]
    for blocks, size in LAYOUTS:
        if len(blocks) * size >= k.shape[1]:
            out = through_cache(kind(), q, k, v, blocks, size)
            torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


@kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_causal_in_16_bits(kind: type[SdpaAttention], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in random(*shape))
    out = through_cache(kind(), q, k, v)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), written_out(q, k, v)[0], atol=2e-2, rtol=2e-2)


@kinds
def test_far_past_and_own_tokens_may_differ_hugely_in_weight(kind: type[SdpaAttention]) -> None:
    """The two parts are joined without overflow where one of them has all the weight."""
    for past, own in ((60.0, -60.0), (-60.0, 60.0)):
        q = torch.ones(3, 2, 16)
        k = torch.cat((torch.full((2, 5, 16), past), torch.full((2, 3, 16), own)), 1)
        v = torch.randn(2, 8, 16)
        out = through_cache(kind(), q, k, v)
        torch.testing.assert_close(out.double(), written_out(q, k, v)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 5, 2048])
@pytest.mark.parametrize(("queries", "keys", "causal"), [(11, 11, True), (11, 11, False), (3, 11, False), (1, 1, True)])
def test_log_sum_exp_twins(queries: int, keys: int, causal: bool, block: int) -> None:
    q, k, v = random(queries, keys, 4, 4, 24)
    q = q.transpose(0, 1)
    out, lse = attend_with_lse(q, k, v, causal)
    plain_out, plain_lse = attend_with_lse_plain(q, k, v, causal, block)
    scores = q.double() @ k.double().transpose(1, 2) * 24**-0.5
    if causal:
        scores = scores.masked_fill(torch.ones(keys, keys).triu(1).bool(), float("-inf"))
    for each in (lse, plain_lse):
        assert each.dtype == torch.float32
        torch.testing.assert_close(each.double(), scores.logsumexp(-1), atol=1e-5, rtol=1e-5)
    for each in (out, plain_out):
        torch.testing.assert_close(each.double(), scores.softmax(-1) @ v.double(), atol=1e-5, rtol=1e-5)


@kinds
@pytest.mark.parametrize("lengths", [[6], [4, 4, 4], [4, 6, 6, 1, 4]])
def test_frames_are_seen_alone(kind: type[SdpaAttention], lengths: list[int]) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(lengths), 3, 36) for _ in range(3))
    out = kind().frames(q, k, v, PackedLayout.of(lengths, pad=False))
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        scores = torch.einsum("tnh,snh->nts", q[part], k[part]) * 36**-0.5
        torch.testing.assert_close(out[part], torch.einsum("nts,snh->tnh", scores.softmax(-1), v[part]))
        start += length


@kinds
@pytest.mark.parametrize("sizes", [[1] * 20, [7, 13], [3, 1, 9, 2, 5], [19, 1]])
def test_chunks_of_a_prompt_are_the_prompt(kind: type[SdpaAttention], sizes: list[int]) -> None:
    q, k, v = random(20, 20, 6, 2, 32)
    k_TKH, v_TKH = k.transpose(0, 1), v.transpose(0, 1)
    whole = kind().packed(q, k_TKH, v_TKH, PackedLayout.of([20]))
    cache, table = new_cache(2, 32, 5, 4, torch.float32), BlockTable(4, (3, 4, 0, 2, 1))
    parts, start = [], 0
    for size in sizes:
        part, context = slice(start, start + size), ForwardContext.paged(cache, [(table, start, size)])
        write(context, 0, k_TKH[part], v_TKH[part])
        parts.append(kind().cached(q[part], k_TKH[part], v_TKH[part], context, 0))
        start += size
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


@kinds
def test_sequences_in_one_pass_do_not_see_each_other(kind: type[SdpaAttention]) -> None:
    """A token that goes on, a chunk behind a past, a whole prompt: each as if it were alone."""
    cache, tables = new_cache(2, 16, 9, 4, torch.float32), [BlockTable(4, b) for b in ((8, 0), (3, 4, 1), (2, 7))]
    lengths = [(6, 1), (5, 7), (0, 8)]
    alone = [random(new, past + new, 4, 2, 16, seed=i) for i, (past, new) in enumerate(lengths)]
    for table, (past, _), (_, k, v) in zip(tables, lengths, alone, strict=True):
        cache.write(0, torch.from_numpy(table.slots(0, past)), k[:, :past].transpose(0, 1), v[:, :past].transpose(0, 1))
    context = ForwardContext.paged(cache, [(t, *length) for t, length in zip(tables, lengths, strict=True)])
    q = torch.cat([q for q, _, _ in alone])
    k, v = (
        torch.cat([each[i][:, past:].transpose(0, 1) for each, (past, _) in zip(alone, lengths, strict=True)])
        for i in (1, 2)
    )
    write(context, 0, k, v)
    out = kind().cached(q, k, v, context, 0)
    for segment, each in zip(context.segments, alone, strict=True):
        expected = written_out(*each)[0]
        torch.testing.assert_close(out[segment.slice].double(), expected, atol=1e-5, rtol=1e-5)


def test_join() -> None:
    """Parts whose exponentials sum to 1 and 3 weigh 1/4 and 3/4; one of them may be far out of range of the other."""
    outs = torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    torch.testing.assert_close(join(outs, torch.tensor([[1.0], [3.0]]).log().unbind()), torch.tensor([[2.0, 3.0]]))
    assert torch.equal(join(outs, (torch.tensor([-500.0]), torch.tensor([500.0]))), outs[1])


class Sizes(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return out


@kinds
@pytest.mark.parametrize("past", [0, 2048])
def test_no_matrix_of_all_queries_by_all_keys(kind: type[SdpaAttention], past: int) -> None:
    """A chunk of 2048 of 4096 tokens: T x S would be 8 million values, T x T 4 million."""
    q, k, v = random(2048, 2048 + past, 2, 1, 16)
    table = BlockTable(512, (8, 9, 10, 11, 1, 2, 3, 4))
    cache, k_SKH, v_SKH = new_cache(1, 16, 12, 512, torch.float32), k.transpose(0, 1), v.transpose(0, 1)
    cache.write(0, torch.from_numpy(table.slots(0, past)), k_SKH[:past], v_SKH[:past])
    context = ForwardContext.paged(cache, [(table, past, 2048)])
    with Sizes() as sizes:
        write(context, 0, k_SKH[past:], v_SKH[past:])
        out = kind().cached(q, k_SKH[past:], v_SKH[past:], context, 0)
    assert sizes.largest <= max(4 * q.numel(), 12 * 512 * 16), sizes.largest  # the pool itself is one of the tensors
    with Sizes() as sizes:  # the measure does see such a matrix
        torch.einsum("tnh,ksh->nts", q[:, :1], k)
    assert sizes.largest >= 2048 * (2048 + past)
    rows = [0, 1, 700, 2047]
    for row in rows:
        visible = past + row + 1
        expected, _ = written_out(q[row : row + 1], k[:, :visible], v[:, :visible])
        torch.testing.assert_close(out[row : row + 1].double(), expected, atol=1e-5, rtol=1e-5)


def test_pack() -> None:
    """Three sequences of 3, 1 and 2 tokens lie at 0..2, 3 and 4..5."""
    context = ForwardContext.pack([3, 1, 2])
    assert [segment.slice for segment in context.segments] == [slice(0, 3), slice(3, 4), slice(4, 6)]
    assert context.num_tokens == 6 and context.layout is not None and context.layout.lengths == (3, 1, 2)


def test_slots_of_a_batch() -> None:
    """The example of ForwardContext.paged."""
    cache = new_cache(1, 4, 7, 4, torch.float32)
    context = ForwardContext.paged(cache, [(BlockTable(4, (5, 6)), 3, 2), (BlockTable(4, (2,)), 0, 3)])
    assert context.slot_mapping_T is not None and context.slot_mapping_T.tolist() == [23, 24, 8, 9, 10]
    first, second = context.segments
    assert (first.slice, first.past, first.runs, first.slots_S) == (slice(0, 2), 3, ((20, 25),), None)
    assert (second.slice, second.past, second.runs) == (slice(2, 5), 0, ((8, 11),))


def fake_flash_attn() -> ModuleType:
    """The two functions of flash-attn that are used, in plain torch, with its layout and mask rule."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        assert causal and q.ndim == 4 and k.shape[0] == 1
        return written_out(q[0], k[0].transpose(0, 1), v[0].transpose(0, 1))[0].to(q.dtype)[None]

    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, causal: bool = False
    ) -> Tensor:
        assert cu_q.dtype == cu_k.dtype == torch.int32
        lengths = cu_q.diff().tolist()
        assert max_q == max_k == max(lengths) and cu_q[0] == 0 and cu_q[-1] == len(q)
        layout = PackedLayout.of(lengths, pad=causal)
        sdpa = SdpaAttention()
        return sdpa.packed(q, k, v, layout) if causal else sdpa.frames(q, k, v, layout)

    module = ModuleType("flash_attn")
    module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func  # type: ignore[attr-defined]
    return module


def test_flash_attention_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", fake_flash_attn())
    flash: Attention = make_attention("flash_attention_2")
    assert isinstance(flash, FlashAttention2)
    for shape in SHAPES:
        q, k, v = random(*shape)
        out = through_cache(flash, q, k, v)
        torch.testing.assert_close(out, through_cache(SdpaAttention(), q, k, v), atol=1e-5, rtol=1e-5)
    q, k, v = (torch.randn(17, 2, 8) for _ in range(3))
    for layout, run in (
        (PackedLayout.of([4, 6, 6, 1]), "packed"),
        (PackedLayout.of([4, 6, 6, 1], pad=False), "frames"),
    ):
        ours, theirs = getattr(SdpaAttention(), run), getattr(flash, run)
        torch.testing.assert_close(theirs(q, k, v, layout), ours(q, k, v, layout))


def test_unknown_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_attention(None)) is KernelAttention and type(make_attention("sdpa")) is SdpaAttention
    with pytest.raises(UnsupportedOption, match="'eager' is not known: choose sdpa or flash_attention_2"):
        make_attention("eager")
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(UnsupportedOption, match="flash-attn package, which is not installed"):
        make_attention("flash_attention_2")
