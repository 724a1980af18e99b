"""The attention kernels against their torch twin; equal bits in any company, on any way and instruction set."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from qwen3vl.kernels.cpu import attention, attention_plain
from qwen3vl.kernels.cpu.attention import Plan, Run, attend
from qwen3vl.kernels.cpu.library import library
from tests.isas import ISAS, using

FLOAT, BF16, INT8 = torch.float32, torch.bfloat16, torch.int8
TYPES = [(FLOAT, FLOAT), (BF16, BF16), (FLOAT, BF16), (FLOAT, INT8), (BF16, INT8)]
types = pytest.mark.parametrize(("dtype", "kv"), TYPES, ids=str)
HEADS = [(4, 2, 64), (2, 1, 128), (16, 2, 8), (3, 3, 16), (4, 4, 72), (5, 1, 40), (2, 2, 36), (2, 1, 256), (8, 1, 32)]
STEP = ((1, 0), (1, 300), (5, 0), (1, 127), (33, 17), (2, 255), (3, 126), (1, 128))  # (new tokens, tokens before them)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this CPU has."""
    with using(request.param):
        yield request.param


class Case:
    """Queries of a step, and keys and values scattered over blocks of a pool."""

    def __init__(
        self,
        heads: tuple[int, int, int],
        step: Sequence[tuple[int, int]],
        dtype: torch.dtype = FLOAT,
        kv: torch.dtype = FLOAT,
        block: int = 16,
    ) -> None:
        num_heads, kv_heads, size = heads
        generator = torch.Generator().manual_seed(0)
        sizes = [-(-(new + past) // block) for new, past in step]
        blocks = list(range(sum(sizes)))
        random.Random(0).shuffle(blocks)
        self.parts: list[tuple[int, int, int, list[Run]]] = []
        start = 0
        for (new, past), count in zip(step, sizes, strict=True):
            own, blocks = blocks[:count], blocks[count:]
            left = new + past
            runs = [(b * block, b * block + min(block, left - i * block)) for i, b in enumerate(own)]
            self.parts.append((start, new, past, runs))
            start += new
        self.q = torch.randn(start, num_heads, size, generator=generator).to(dtype)
        self.k, self.v = (torch.randn(kv_heads, sum(sizes) * block, size, generator=generator) for _ in range(2))
        self.scales: tuple[Tensor, Tensor] | None = None
        if kv == INT8:
            scale_k, scale_v = (x.abs().amax(-1) / 127 for x in (self.k, self.v))
            self.scales = scale_k, scale_v
            self.k, self.v = ((x / s[..., None]).round() for x, s in zip((self.k, self.v), self.scales, strict=True))
        self.k, self.v = self.k.to(kv), self.v.to(kv)

    def run(self, causal: bool = True) -> Tensor:
        return attend(self.q, self.k, self.v, Plan.of(self.parts), self.scales, causal=causal)

    def twin(self, causal: bool = True) -> Tensor:
        return attention_plain.attend(self.q, self.k, self.v, Plan.of(self.parts), self.scales, causal=causal)


def off(out: Tensor, expected: Tensor) -> float:
    return float((out.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@types
def test_equals_the_twin(
    isa: str, heads: tuple[int, int, int], dtype: torch.dtype, kv: torch.dtype, causal: bool
) -> None:
    if isa == "plain" and heads[2] > 128:
        pytest.skip("slow in portable code, and no other way through it")
    case = Case(heads, STEP, dtype, kv)
    out = case.run(causal)
    assert out.dtype == dtype and out.shape == case.q.shape
    assert off(out, case.twin(causal)) < (2e-6 if dtype == FLOAT else 2**-8)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 23, 24, 25, 49, 127, 128, 129, 191, 255, 257, 600])
def test_lengths(length: int) -> None:
    if library() is None:
        pytest.skip("the kernels were not built")
    for causal in (True, False):
        case = Case((2, 1, 16), ((length, 0),), block=600)
        assert off(case.run(causal), case.twin(causal)) < 2e-6


def test_the_plan_of_the_docstring() -> None:
    plan = Plan.of([(0, 2, 3, [(20, 24), (8, 9)])])
    assert plan.num_tokens == 2 and plan.sequences_S5.tolist() == [[0, 2, 3, 0, 2]]
    assert plan.runs_R2.tolist() == [[0, 20], [4, 8]]
    packed = Plan.packed((3, 1))
    assert packed.sequences_S5.tolist() == [[0, 3, 0, 0, 1], [3, 1, 0, 1, 1]] and packed.runs_R2.tolist() == [
        [0, 0],
        [0, 3],
    ]


@types
def test_instruction_sets_give_the_same_bits(dtype: torch.dtype, kv: torch.dtype) -> None:
    kernels = library()
    if kernels is None:
        pytest.skip("the kernels were not built")
    before, outs = kernels.qwen3vl_isa(), {}
    for name in ISAS:
        if kernels.qwen3vl_use_isa(name.encode()) == 0:
            outs[name] = [Case(heads, STEP, dtype, kv).run() for heads in ((4, 2, 64), (4, 4, 24))]
    kernels.qwen3vl_use_isa(before)
    for out in outs.values():
        assert all(map(torch.equal, out, outs["plain"]))


@types
def test_company_cuts_threads_and_places_change_no_bit(dtype: torch.dtype, kv: torch.dtype) -> None:
    """A prompt of 300 tokens at once; each of its tokens alone; in odd chunks beside others; elsewhere in the pool."""
    kernels = library()
    if kernels is None:
        pytest.skip("the kernels were not built")
    case = Case((4, 2, 24), ((300, 0),), dtype, kv, block=512)
    whole, runs = case.run(), case.parts[0][3]

    def chunk(first: int, last: int) -> Tensor:
        parts = [(0, last - first, first, [(runs[0][0], runs[0][0] + last)])]
        return attend(case.q[first:last], case.k, case.v, Plan.of(parts), case.scales, causal=True)

    for first, last in [*((i, i + 1) for i in range(0, 300, 7)), (0, 3), (125, 131), (126, 300), (1, 290), (253, 262)]:
        assert torch.equal(chunk(first, last), whole[first:last]), (first, last)
    # Two copies of the sequence in other places and with a stranger between them.
    order = torch.randperm(512, generator=torch.Generator().manual_seed(1))
    moved = [torch.cat((x, x[:, order]), 1) for x in (case.k, case.v)]
    scales = None if case.scales is None else tuple(torch.cat((s, s[:, order]), 1) for s in case.scales)
    places = torch.argsort(order)[:300] + 512
    q = torch.cat((case.q[:200], case.q[40:50], case.q[297:]))
    scattered = [(int(p), int(p) + 1) for p in places]
    parts = [(0, 200, 0, scattered[:200]), (200, 10, 0, [(700, 710)]), (210, 3, 297, scattered)]
    threads = kernels.qwen3vl_threads()
    for count in (1, 2, 5):
        kernels.qwen3vl_set_threads(count)
        out = attend(q, *moved, Plan.of(parts), scales, causal=True)  # type: ignore[arg-type]
        assert torch.equal(out[:200], whole[:200]) and torch.equal(out[210:], whole[297:])
    kernels.qwen3vl_set_threads(threads)


@types
def test_one_token_behind_many(dtype: torch.dtype, kv: torch.dtype) -> None:
    """Its keys are several pieces of work; the bits are those of a chunk, which is one."""
    if library() is None:
        pytest.skip("the kernels were not built")
    case = Case((4, 1, 40), ((20, 2230),), dtype, kv)
    (_, _, past, runs), whole = case.parts[0], case.run()
    assert off(whole, case.twin()) < (2e-6 if dtype == FLOAT else 2**-8)
    last = attend(case.q[-1:], case.k, case.v, Plan.of([(0, 1, past + 19, runs)]), case.scales, causal=True)
    assert torch.equal(last, whole[-1:])


def test_rows_that_are_spread_or_unaligned(isa: str) -> None:
    """Keys as a slice of a larger tensor, tokens first: they are packed, and give the bits of dense ones."""
    case = Case((4, 2, 24), ((70, 0),), block=140)
    dense = case.run(), case.run(False)
    wide = torch.zeros(140, 7, 24)
    wide[:, 1:3], wide[:, 4:6] = case.k.transpose(0, 1), case.v.transpose(0, 1)
    case.k, case.v = (wide[:, i : i + 2].transpose(0, 1) for i in (1, 4))
    assert torch.equal(case.run(), dense[0]) and torch.equal(case.run(False), dense[1])
    shifted = torch.cat((torch.zeros(1), case.k.flatten()))[1:].view(case.k.shape)
    case.k, case.q = shifted, torch.cat((torch.zeros(1), case.q.flatten()))[1:].view(case.q.shape)
    assert torch.equal(case.run(), dense[0])


def test_many_packed_sequences(isa: str) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 40, 3, 131, 1, 1, 12]
    q, k, v = (torch.randn(sum(lengths), n, 36, generator=generator).transpose(0, 1) for n in (4, 2, 2))
    plan = Plan.packed(tuple(lengths))
    for causal in (True, False):
        out = attend(q.transpose(0, 1), k, v, plan, causal=causal)
        assert off(out, attention_plain.attend(q.transpose(0, 1), k, v, plan, causal=causal)) < 2e-6


def test_the_exponential(isa: str) -> None:
    """Two keys of scores 0 and t, values 0 and 1: out = e^t / (1 + e^t)."""
    t = torch.cat((torch.linspace(-80, 0, 4001), -torch.logspace(-9, 1, 500)))
    q = torch.zeros(len(t), 1, 8)
    q[:, 0, 0] = t * 8**0.5
    k, v = torch.zeros(1, 2, 8), torch.zeros(1, 2, 8)
    k[0, 1, 0] = v[0, 1, :] = 1
    for rows in (slice(None), slice(3, 4)):  # in panels, and as one row
        parts = [(0, len(q[rows]), 2 - len(q[rows]), [(0, 2)])] if len(q[rows]) < 3 else [(0, 2, 0, [(0, 2)])]
        plan = Plan.of(parts) if len(q[rows]) < 3 else None
        if plan is None:  # all queries as one sequence whose keys are two: as many sequences of one token
            plan = Plan.of([(i, 1, 1, [(0, 2)]) for i in range(len(t))])
        out = attend(q[rows], k, v, plan, causal=False)[:, 0, 0].double()
        # t as the kernel sees it is rounded twice, which is an error of |t| * 2 ** -23 in e^t.
        exact = torch.sigmoid(t[rows].double())
        assert ((out - exact).abs() <= exact * (5e-7 + t[rows].abs() * 2.5e-7)).all()


def test_zeros_and_large_numbers(isa: str) -> None:
    case = Case((4, 2, 64), ((40, 100), (1, 260)))
    expected = case.twin()
    case.v *= 1000
    assert off(case.run(), 1000 * expected) < 2e-6
    case.q[:20] = 0  # every key weighs the same
    assert off(case.run(), case.twin()) < 2e-6
    case.k[:, ::7] = 0
    case.v[:, ::5] = 0
    assert off(case.run(), case.twin()) < 2e-6
    case.k[:, ::31] *= 1000  # outliers take all the weight or none
    case.q[:] = torch.sign(case.q) * 0.25  # products are exact enough to know which
    assert off(case.run(), case.twin()) < 2e-4
    case.k[:] = 0
    case.v[:] = 0
    assert torch.equal(case.run(), torch.zeros_like(case.q))


def test_a_clear_winner_takes_all(isa: str) -> None:
    """Everything a thousand times larger: scores of millions, among which the largest wins by more than rounding."""
    case = Case((4, 2, 64), ((60, 90), (1, 200)))
    case.q *= 1000
    case.k *= 1000
    out, expected = case.run().double(), case.twin()
    case.q *= 0.99999  # scores a hair flatter: rows that stay as they are have a clear winner
    clear = (case.twin() - expected).abs().amax(-1) < 1e-9
    assert clear.double().mean() > 0.9
    torch.testing.assert_close(out[clear], expected[clear], atol=1e-6, rtol=1e-6)


def test_nan_stays_with_its_rows(isa: str) -> None:
    """A NaN key reaches the rows that see it, in both ways through the kernels; others keep their bits."""
    for new in (40, 1):
        case = Case((2, 1, 16), ((new, 10),), block=64)
        before, slot = case.run(), case.parts[0][3][0][0] + 10 + new // 2
        case.k[0, slot] = float("nan")
        out = case.run()
        assert torch.equal(out[: new // 2], before[: new // 2]) and out[new // 2 :].isnan().all()


def test_what_can_be_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(1, 1, 8)
    if library() is not None:
        fast = library().qwen3vl_isa() != b"plain"  # type: ignore[union-attr]
        assert attention.can_attend(q, q, q.to(INT8)) is fast or library() is None
    assert not attention.can_attend(q.double()) and not attention.can_attend(q.half())
    assert not attention.can_attend(q.to("meta"))
    assert not attention.can_attend(q, q.clone().requires_grad_())
    with torch.no_grad():
        assert attention.can_attend(q, q.clone().requires_grad_()) == attention.can_attend(q)
    monkeypatch.setattr(attention, "library", lambda: None)
    assert not attention.can_attend(q)
