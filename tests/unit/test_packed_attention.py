"""Attention over packed sequences against each sequence alone, forwards and backwards."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from qwen3vl.model.packed_attention import PackedLayout, packed_causal, packed_frames

LENGTHS = [[1], [7], [5, 5, 5], [3, 2, 13], [40, 1, 1, 33, 90, 38, 7], [2, 30, 2, 30, 2]]


def test_the_example_on_top_of_the_file() -> None:
    layout = PackedLayout.of([3, 2, 13])
    assert layout.buckets == ((1, 13), (2, 3))
    assert layout.token_of_row_R is not None and layout.row_of_token_T is not None
    assert layout.token_of_row_R.tolist() == [*range(5, 18), 0, 1, 2, 3, 4, 4]
    assert layout.row_of_token_T.tolist() == [13, 14, 15, 16, 17, *range(13)]


def test_nothing_is_moved_that_lies_well() -> None:
    for layout in (PackedLayout.of([9, 9, 9]), PackedLayout.of([30, 12]), PackedLayout.of([4, 4, 6, 6], pad=False)):
        assert layout.token_of_row_R is None and layout.row_of_token_T is None


def test_frames_of_one_size_go_together_wherever_they_stand() -> None:
    assert PackedLayout.of([4, 6, 4, 6, 4], pad=False).buckets == ((3, 4), (2, 6))


def test_few_calls_and_little_padding() -> None:
    """Hundreds of short sequences: a dozen calls, and at most a fifth of the rows is padding."""
    draw = random.Random(0)
    lengths = [int(16 * 40 ** draw.random()) for _ in range(400)]
    buckets = PackedLayout.of(lengths).buckets
    assert len(buckets) <= 20
    assert sum(lengths) <= sum(count * longest for count, longest in buckets) <= 1.25 * sum(lengths)


def written_out(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("tnh,snh->nts", q, k) * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), float("-inf"))
    return torch.einsum("nts,snh->tnh", scores.softmax(-1), v)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_equals_each_sequence_alone(lengths: list[int], causal: bool) -> None:
    torch.manual_seed(0)
    heads = (6, 2, 2) if causal else (3, 3, 3)
    inputs = [torch.randn(sum(lengths), n, 36, dtype=torch.float64, requires_grad=True) for n in heads]
    grad = torch.randn(sum(lengths), heads[0], 36, dtype=torch.float64)
    run = packed_causal if causal else packed_frames
    out = run(*inputs, PackedLayout.of(lengths, pad=causal))
    alone = torch.cat([written_out(*parts, causal) for parts in zip(*(x.split(lengths) for x in inputs), strict=True)])
    torch.testing.assert_close(out, alone)
    for mine, theirs in zip(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(alone, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
