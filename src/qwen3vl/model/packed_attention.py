"""Attention over packed sequences without a cache, with gradients: training, and scoring many prompts at once.

Sequences of similar length share one batched call. They are padded on the right, where the causal mask
hides the padding from every true token, so no mask tensor is made; what the padding computes is dropped.

    lengths 3, 2, 13      tokens   0 1 2 | 3 4 | 5 .. 17
    buckets               1 x 13 (sequence 2), 2 x 3 (sequences 0 and 1), the longest first
    token of each row     5 .. 17 | 0 1 2 | 3 4 4          row 18 repeats token 4: padding
    row of each token     13 14 15 | 16 17 | 0 .. 12

Shape names: T packed tokens, R rows after padding, B sequences of a bucket, L its longest, P patches,
N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_FILL = 0.8  # a sequence at least this long, relative to a bucket's longest, is padded into the bucket
_STEP = 8  # tokens: shorter differences never open a bucket; a call costs more than such padding


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """How packed sequences go into padded batches: made once per batch, used by every layer.

    Attributes:
        lengths: of the sequences, in order; their sum is T.
        buckets: (number of sequences, rows of each), in the order of the rows.
        token_of_row_R, row_of_token_T: both ways, int64; None where rows and tokens are the same.
    """

    lengths: tuple[int, ...]
    buckets: tuple[tuple[int, int], ...]
    token_of_row_R: Tensor | None
    row_of_token_T: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu", *, pad: bool = True) -> PackedLayout:
        """Plan for sequences of these lengths. `pad=False` joins equal lengths only, as frames need."""
        assert lengths and min(lengths) > 0, lengths
        buckets = _buckets(lengths, pad)
        shapes = tuple((len(members), lengths[members[0]]) for members in buckets)
        in_order = [i for members in buckets for i in members] == list(range(len(lengths)))
        if in_order and sum(count * longest for count, longest in shapes) == sum(lengths):
            return cls(tuple(lengths), shapes, None, None)
        lengths_B = torch.tensor(lengths)
        first_B = lengths_B.cumsum(0) - lengths_B
        tokens, own = [], []
        for members, (_, longest) in zip(buckets, shapes, strict=True):
            step_L, last_B1 = torch.arange(longest), lengths_B[members, None] - 1
            tokens.append((first_B[members, None] + torch.minimum(step_L, last_B1)).flatten())
            own.append((step_L <= last_B1).flatten())
        token_of_row_R, row_R = torch.cat(tokens), torch.cat(own).nonzero().flatten()
        row_of_token_T = torch.empty(sum(lengths), dtype=torch.int64)
        row_of_token_T[token_of_row_R[row_R]] = row_R
        return cls(tuple(lengths), shapes, token_of_row_R, row_of_token_T).to(torch.device(device))

    def to(self, device: torch.device) -> PackedLayout:
        """The same plan with its indices on a device."""
        if self.token_of_row_R is None or self.row_of_token_T is None or self.token_of_row_R.device == device:
            return self
        return PackedLayout(self.lengths, self.buckets, self.token_of_row_R.to(device), self.row_of_token_T.to(device))


def packed_causal(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout) -> Tensor:
    """Each token attends to those of its own sequence up to itself. -> out_TNH. Scores are scaled by H ** -0.5."""
    return _attend(q_TNH, k_TKH, v_TKH, layout, causal=True)


def packed_frames(q_PNH: Tensor, k_PNH: Tensor, v_PNH: Tensor, layout: PackedLayout) -> Tensor:
    """Patches attend within their own frame; `layout` is one made with pad=False. -> out_PNH."""
    return _attend(q_PNH, k_PNH, v_PNH, layout, causal=False)


def _attend(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, layout: PackedLayout, causal: bool) -> Tensor:
    layout = layout.to(q_TNH.device)
    inputs = (q_TNH, k_TKH, v_TKH)
    if layout.token_of_row_R is not None:
        inputs = tuple(_Take.apply(x, layout.token_of_row_R, layout.row_of_token_T) for x in inputs)  # type: ignore[assignment]
    sizes = [count * longest for count, longest in layout.buckets]
    grouped = q_TNH.shape[1] != k_TKH.shape[1]
    out = []
    for (count, longest), *parts in zip(layout.buckets, *(x.split(sizes) for x in inputs), strict=True):
        q, k, v = (x.unflatten(0, (count, longest)).transpose(1, 2) for x in parts)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        out.append(attended.transpose(1, 2).flatten(0, 1))
    rows = out[0] if len(out) == 1 else torch.cat(out)
    return rows if layout.row_of_token_T is None else take_rows(rows, layout.row_of_token_T)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] along the first axis for rows that are all different, which makes the way back a copy, not a sum."""
    return _TakeRows.apply(x, rows)  # type: ignore[no-any-return]


def _buckets(lengths: Sequence[int], pad: bool) -> list[list[int]]:
    """Indices of sequences that go together, longest bucket and longest sequence first.

    Without padding the order of first appearance is kept, so that frames that already lie together stay.
    """
    if not pad:
        equal: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            equal.setdefault(length, []).append(i)
        return list(equal.values())
    buckets: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[buckets[-1][0]] if buckets else 0
        if buckets and lengths[i] >= min(_LEAST_FILL * longest, longest - _STEP):
            buckets[-1].append(i)
        else:
            buckets.append([i])
    return buckets


class _Take(torch.autograd.Function):
    """x_R = x_T[token_of_row]. Padding gets no gradient (its outputs are dropped), so the way back is a gather
    too, not a sum by index, which is slow on CPUs and not deterministic on GPUs."""

    @staticmethod
    def forward(ctx: Any, x_T: Tensor, token_of_row_R: Tensor, row_of_token_T: Tensor) -> Tensor:
        ctx.save_for_backward(row_of_token_T)
        return x_T.index_select(0, token_of_row_R)

    @staticmethod
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return grad_R.index_select(0, ctx.saved_tensors[0]), None, None


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.num_rows = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        grad_x = grad.new_zeros(ctx.num_rows, *grad.shape[1:])
        return grad_x.index_copy_(0, ctx.saved_tensors[0], grad), None
