"""Attention in products of 16 bits: how far off it is, that rows do not depend on company, and where it is not used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from qwen3vl.kernels.cpu import attention_plain
from qwen3vl.kernels.cpu.attention import Plan, attend
from qwen3vl.kernels.cpu.library import library
from tests.isas import using


@pytest.fixture(autouse=True)
def avx2() -> Iterator[None]:
    """The only instruction set that has it."""
    with using("avx2"):
        yield


def heads(tokens: int, count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(tokens, 3, count, size, generator=torch.Generator().manual_seed(seed))


def run(qkv: Tensor, lengths: tuple[int, ...], rounded: bool = True) -> Tensor:
    q, k, v = qkv.unbind(1)
    return attend(q, k.transpose(0, 1), v.transpose(0, 1), Plan.packed(lengths), causal=False, rounded=rounded)


def exact(qkv: Tensor, lengths: tuple[int, ...]) -> Tensor:
    q, k, v = qkv.unbind(1)
    return attention_plain.attend(q, k.transpose(0, 1), v.transpose(0, 1), Plan.packed(lengths), causal=False)


def off(out: Tensor, expected: Tensor) -> float:
    return float((out - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", [8, 40, 64, 72, 128])
@pytest.mark.parametrize("lengths", [(1,), (2, 1, 7), (15, 129), (257,), (193, 128, 300)])
def test_error_is_a_fourth_of_bfloat16s_at_most(size: int, lengths: tuple[int, ...]) -> None:
    qkv = heads(sum(lengths), size=size)
    expected = exact(qkv, lengths)
    error = off(run(qkv, lengths), expected)
    assert error < (5e-4 if size <= 72 else 8e-4) and error < off(exact(qkv.bfloat16(), lengths), expected) / 4


def test_sharp_and_flat_attention() -> None:
    lengths = (300,)
    for factor, most in ((0.0, 5e-4), (0.01, 5e-4), (4, 1.5e-3), (20, 5e-3)):
        qkv = heads(300)
        qkv[:, 0] *= factor
        assert off(run(qkv, lengths), exact(qkv, lengths)) < most, factor


def test_outliers_cost_their_own() -> None:
    """A value a thousand times the rest: of its row, key or column. Queries of zero, and values of zero."""
    qkv, lengths = heads(260), (260,)
    plain = exact(qkv, lengths)
    qkv[17, 2, 0, 5] *= 1000  # weighed for all rows of this column, whose other values are then small
    out, expected = run(qkv, lengths), exact(qkv, lengths)
    assert off(out, expected) < 3e-3  # one weight decides: 1 / 16384 of the largest is that much of a small one
    out[:, 0, 5], expected[:, 0, 5] = 0, 0
    assert off(out, expected) < 5e-4
    qkv[17, 2, 0, 5] /= 1000
    qkv[30, 0] = 0
    qkv[31, 0] *= 1000
    qkv[40, 1] = 0
    out, expected = run(qkv, lengths), exact(qkv, lengths)
    assert off(out[30], expected[30]) < 5e-4 and out.isfinite().all()
    others = torch.arange(260) != 31
    assert off(out[others], expected[others]) < 5e-4 and not torch.equal(expected, plain)
    qkv[:, 2] = 0
    assert torch.equal(run(qkv, lengths), torch.zeros(260, 2, 64))


def test_largest_sums_do_not_overflow() -> None:
    """All of a row at its limit, all of a block's weights and values too."""
    for sign in (1, -1):
        qkv = torch.ones(256, 3, 1, 72)
        qkv[:, 1:] *= sign
        torch.testing.assert_close(run(qkv, (256,)), torch.full((256, 1, 72), float(sign)), atol=1e-5, rtol=0)


def test_company_threads_and_strides_change_no_bit() -> None:
    kernels = library()
    assert kernels is not None
    qkv = heads(500, count=3, size=72)
    whole = run(qkv, (210, 290))
    assert torch.equal(run(qkv[:210], (210,)), whole[:210]) and torch.equal(run(qkv[210:], (290,)), whole[210:])
    for head in range(3):
        assert torch.equal(run(qkv[:, :, head : head + 1], (210, 290)), whole[:, head : head + 1])
    threads = kernels.qwen3vl_threads()
    kernels.qwen3vl_set_threads(3)
    assert torch.equal(run(qkv, (210, 290)), whole)
    kernels.qwen3vl_set_threads(threads)
    # Queries of a frame in another order, keys where they were.
    q, k, v = (x[210:] for x in qkv.unbind(1))
    turned = attend(q.flip(0), k.transpose(0, 1), v.transpose(0, 1), Plan.packed((290,)), causal=False, rounded=True)
    assert torch.equal(turned.flip(0), whole[210:])


def test_what_it_does_not_know_goes_the_exact_way() -> None:
    qkv = heads(60, size=36)  # not a multiple of 8
    assert torch.equal(run(qkv, (60,)), run(qkv, (60,), rounded=False))
    qkv = heads(60).bfloat16()
    assert torch.equal(run(qkv, (60,)), run(qkv, (60,), rounded=False))
    q, k, v = heads(60).unbind(1)
    for rounded in (True, False):
        outs = attend(q, k.transpose(0, 1), v.transpose(0, 1), Plan.packed((60,)), causal=True, rounded=rounded)
        assert off(outs[:1], v[:1]) < 1e-6  # the first token sees itself
    with using("plain"):
        assert torch.equal(run(heads(60), (60,)), run(heads(60), (60,), rounded=False))
