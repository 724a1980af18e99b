"""Attention in which a token's result depends on its own sequence alone, to the last bit.

Keys are read in blocks that begin at multiples of BLOCK tokens of the sequence, filled up with zeros and
masked, and the softmax runs over them in order. Queries go through in row tiles (row_tiles.py). So neither
the number of queries of a pass nor what else is in the batch changes the order in which anything is summed;
a block in which a row sees nothing changes nothing of it: exp(-inf) = 0, and x * 1 + 0 = x.

Shape names: T query tokens, N query heads, K key/value heads, R = T x N / K rows, H head size, B keys of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from qwen3vl.config import TextConfig
from qwen3vl.errors import UnsupportedOption
from qwen3vl.kernels.cpu import attention as kernels
from qwen3vl.model.attention import ForwardContext, KernelAttention, Segment, group_heads, kept, ungroup_heads
from qwen3vl.model.cache import PagedKVCache, Run
from qwen3vl.model.packed_attention import PackedLayout
from qwen3vl.model.row_tiles import plan, verified_tiles

BLOCK = 256  # keys
_SIZES = {"cpu": (16, 128), "cuda": (64, 512)}

Fetch = Callable[[int, int], tuple[Tensor, Tensor]]  # tokens from .. to -> k_KSH, v_KSH, of at most BLOCK tokens


class TileAttention(KernelAttention):
    """The C++ kernels where they go: they keep this promise by themselves. Else causal attention in float32, in tiles.

    Frames as in KernelAttention: torch's own would do too, since they always come in one shape.

    Raises UnsupportedOption if this machine does not give rows the same bits in every place.
    """

    def __init__(self, device: torch.device, config: TextConfig) -> None:
        self._threads = torch.get_num_threads()
        self._sizes = _verified_sizes(device, config.num_key_value_heads, config.head_dim, self._threads)

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        if kernels.can_attend(q_TNH, kept(context, layer).keys_KXH):
            return super().cached(q_TNH, k_TKH, v_TKH, context, layer)
        cache, out = context.held(), []
        for segment in context.segments:
            out.append(self._attend(q_TNH[segment.slice], segment.past, _from_cache(segment, cache, layer)))
        return out[0] if len(out) == 1 else torch.cat(out)

    def packed(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
        if kernels.can_attend(q_TNH, k_TKH, v_TKH):
            return super().packed(q_TNH, k_TKH, v_TKH, layout)
        out = []
        for q, k, v in zip(*(x.split(list(layout.lengths)) for x in (q_TNH, k_TKH, v_TKH)), strict=True):
            out.append(self._attend(q, 0, _from_chunk(k, v)))
        return torch.cat(out)

    def _attend(self, q_TNH: Tensor, past: int, fetch: Fetch) -> Tensor:
        """Each token attends to its sequence up to itself; `fetch` gives keys and values. -> out_TNH."""
        if torch.get_num_threads() != self._threads:
            raise UnsupportedOption(
                f"deterministic=True was checked with {self._threads} threads, but torch now has "
                f"{torch.get_num_threads()}: set the number before the model is loaded"
            )
        num_tokens, end = len(q_TNH), past + len(q_TNH)
        k_KSH, v_KSH = fetch(0, min(end, BLOCK))
        q_KRH = group_heads(q_TNH, len(k_KSH)).float() * q_TNH.shape[-1] ** -0.5
        last_R = torch.arange(past, end).repeat_interleave(q_KRH.shape[1] // num_tokens)
        tiles = list(_tiles(q_KRH, last_R, self._sizes))
        for start in range(0, end, BLOCK):
            if start:
                k_KSH, v_KSH = fetch(start, min(end, start + BLOCK))
            k_KBH, v_KBH = (_filled_up(x) for x in (k_KSH, v_KSH))
            for tile in tiles:
                tile.see(k_KBH, v_KBH, start)
        out_KRH = torch.cat([tile.result() for tile in tiles], 1)[:, : q_KRH.shape[1]]
        return ungroup_heads(out_KRH, num_tokens).to(q_TNH.dtype)


class _Tile:
    """A running softmax of one tile of rows over blocks of keys (arXiv 2112.05682). All in float32.

    `last_R`, on the CPU, is the last token that each row sees.
    """

    def __init__(self, q_KRH: Tensor, last_R: Tensor) -> None:
        self.q_KRH, self.last_R1 = q_KRH, last_R[:, None].to(q_KRH.device)
        self.nearest, self.furthest = int(last_R.min()), int(last_R.max())
        self.out_KRH = torch.zeros_like(q_KRH)
        self.total_KR1 = q_KRH.new_zeros(*q_KRH.shape[:2], 1)
        self.peak_KR1 = q_KRH.new_full((*q_KRH.shape[:2], 1), float("-inf"))

    def see(self, k_KBH: Tensor, v_KBH: Tensor, start: int) -> None:
        """Keys and values of the tokens from `start` on; row r sees those up to token last_R[r]."""
        if start > self.furthest:
            return
        scores_KRB = torch.bmm(self.q_KRH, k_KBH.transpose(1, 2))
        if start + BLOCK > self.nearest + 1:
            tokens_B = torch.arange(start, start + BLOCK, device=scores_KRB.device)
            scores_KRB.masked_fill_(tokens_B > self.last_R1, float("-inf"))
        peak_KR1 = torch.maximum(self.peak_KR1, scores_KRB.amax(-1, keepdim=True))
        rescale_KR1 = torch.exp(self.peak_KR1 - peak_KR1)
        weights_KRB = torch.exp(scores_KRB - peak_KR1)
        self.out_KRH = self.out_KRH * rescale_KR1 + torch.bmm(weights_KRB, v_KBH)
        self.total_KR1 = self.total_KR1 * rescale_KR1 + weights_KRB.sum(-1, keepdim=True)
        self.peak_KR1 = peak_KR1

    def result(self) -> Tensor:
        return self.out_KRH / self.total_KR1


def _tiles(q_KRH: Tensor, last_R: Tensor, sizes: tuple[int, ...]) -> Iterator[_Tile]:
    """Rows in their tiles; those that fill up the last one are zeros and see the first token."""
    pieces = plan(q_KRH.shape[1], sizes)
    missing = sum(pieces) - q_KRH.shape[1]
    q_KRH = torch.cat((q_KRH, q_KRH.new_zeros(len(q_KRH), missing, q_KRH.shape[2])), 1)
    last_R = torch.cat((last_R, last_R.new_zeros(missing)))
    for q, last in zip(q_KRH.split(pieces, 1), last_R.split(pieces), strict=True):
        yield _Tile(q.contiguous(), last)


def _filled_up(x_KSH: Tensor) -> Tensor:
    """A copy of its own in float32 with BLOCK keys: always the same shape, strides and alignment."""
    out = x_KSH.new_zeros(len(x_KSH), BLOCK, x_KSH.shape[2], dtype=torch.float32)
    out[:, : x_KSH.shape[1]] = x_KSH
    return out


def _from_chunk(k_TKH: Tensor, v_TKH: Tensor) -> Fetch:
    return lambda start, end: (k_TKH[start:end].transpose(0, 1), v_TKH[start:end].transpose(0, 1))


def _from_cache(segment: Segment, cache: PagedKVCache, layer: int) -> Fetch:
    def fetch(start: int, end: int) -> tuple[Tensor, Tensor]:
        if segment.slots_S is not None:
            return cache.gather(layer, segment.slots_S[start:end])
        parts = [cache.read(layer, run) for run in runs_between(segment.runs, start, end)]
        k_KSH, v_KSH = (x[0] if len(x) == 1 else torch.cat(x, 1) for x in zip(*parts, strict=True))
        return k_KSH, v_KSH

    return fetch


def runs_between(runs: Sequence[Run], start: int, end: int) -> Iterator[Run]:
    """Tokens `start` .. `end` of a sequence that lies in `runs`: 6 .. 10 of (20, 28), (8, 12) are (26, 28), (8, 10)."""
    before = 0
    for first, last in runs:
        low, high = max(0, start - before), min(end - before, last - first)
        if low < high:
            yield first + low, first + high
        before += last - first


_CHECKED: dict[tuple[object, ...], tuple[int, ...]] = {}


def _verified_sizes(device: torch.device, heads: int, size: int, threads: int) -> tuple[int, ...]:
    """Tile sizes that give every row the same bits; found out once for a shape."""
    key = (device, heads, size, threads, BLOCK)
    if key not in _CHECKED:
        generator = torch.Generator().manual_seed(0)
        sizes = _SIZES[device.type]
        q, k, v = (torch.randn(heads, n, size, generator=generator).to(device) for n in (sizes[-1], BLOCK, BLOCK))

        def attend(q_KRH: Tensor) -> Tensor:
            tile = _Tile(q_KRH, torch.full((q_KRH.shape[1],), 2 * BLOCK))
            tile.see(k, v, 0)
            tile.see(v, k, BLOCK)
            return tile.result()

        _CHECKED[key] = verified_tiles(attend, q, sizes, f"attention with {heads} heads of {size}", dim=1).sizes
    return _CHECKED[key]
