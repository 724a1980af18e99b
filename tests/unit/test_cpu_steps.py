"""The steps of a layer in C++ against their plain torch twins, with hostile values, on every instruction set."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.kernels.cpu import steps
from qwen3vl.model.int8_cache import quantize
from qwen3vl.model.rope import rotate
from tests.isas import ISAS, using

DTYPES = (torch.float32, torch.bfloat16)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
SIZES = (1, 7, 8, 24, 127, 128, 2048)


@pytest.fixture(params=ISAS, autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this CPU has; no gradients."""
    with using(request.param), torch.inference_mode():
        yield request.param


def hostile(rows: int, size: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """With outliers of a thousand times the rest, rows of zeros and of denormals, a huge row; not aligned."""
    generator = torch.Generator().manual_seed(seed + rows + size)
    flat = torch.randn(rows * size + 1, generator=generator)
    x = flat[1:].view(rows, size)
    x[:, size // 2] *= 1000
    for row, value in zip(range(1, rows), (0.0, 1e-40, 1e15), strict=False):
        x[row] *= value
    return x.to(dtype)


def assert_near(mine: Tensor, exact: Tensor, units: float = 2) -> None:
    """Within some units in the last place of the largest of each row, and in bfloat16 of each value."""
    assert mine.shape == exact.shape and mine.dtype == exact.dtype
    step = units * (2**-22 if mine.dtype == torch.float32 else 2**-8)
    bound = step * exact.float().abs() + 2**-22 * units * exact.float().abs().amax(-1, keepdim=True) + 1e-37
    assert bool(((mine.float() - exact.float()).abs() <= bound).all()), (mine - exact).abs().max()


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


@dtypes
@pytest.mark.parametrize("size", SIZES)
def test_rms_norm(dtype: torch.dtype, size: int) -> None:
    weight = hostile(1, size, dtype, 5)[0]
    for rows in (1, 2, 5, 40):
        x, delta = hostile(rows, size, dtype), hostile(rows, size, dtype, 1)
        assert_near(steps.rms_norm(x, weight, 1e-6), rms_norm(x, weight))
        total, normed = steps.add_rms_norm(x, delta, weight, 1e-6)
        assert torch.equal(total, x + delta)
        assert_near(normed, rms_norm(total, weight))
        assert torch.equal(steps.rms_norm(total, weight, 1e-6), normed)


@dtypes
@pytest.mark.parametrize("size", SIZES)
def test_layer_norm(dtype: torch.dtype, size: int) -> None:
    weight, bias = hostile(2, size, dtype, 5)[:, :].clone().unbind(0)
    for rows in (1, 5, 40):
        x, delta = hostile(rows, size, dtype), hostile(rows, size, dtype, 1)
        total, normed = steps.add_layer_norm(x, delta, weight, bias + 1, 1e-6)
        exact = F.layer_norm(total.double(), (size,), weight.double(), (bias + 1).double(), 1e-6).to(dtype)
        assert torch.equal(total, x + delta)
        assert_near(normed[:3], exact[:3], 16)  # the huge row would overflow


@dtypes
@pytest.mark.parametrize("rows", [1, 2, 33, 600])
def test_swiglu(dtype: torch.dtype, rows: int) -> None:
    both = hostile(rows, 2 * 52, dtype) * 3
    gate, up = both.chunk(2, -1)
    out = steps.swiglu(gate, up)
    assert_near(out, F.silu(gate) * up)
    assert torch.equal(steps.swiglu(gate[-1:].clone(), up[-1:].clone()), out[-1:])
    for offset in range(8):  # an element's bits do not depend on its place
        assert torch.equal(steps.swiglu(gate[:, offset:], up[:, offset:]), out[:, offset:])


def test_silu_over_its_range() -> None:
    """All the way into the tails, where the result is x or nothing."""
    x = torch.cat((torch.linspace(-100, 100, 40001), torch.tensor([math.inf, math.nan, 3e38, -3e38])))[None]
    mine, exact = steps.swiglu(x, torch.ones_like(x)), (x.double() * torch.sigmoid(x.double())).float()
    assert mine[0, -3].isnan() and mine[0, -4] == math.inf
    ok = slice(0, 40001)
    assert bool(((mine - exact)[:, ok].abs() <= 5e-7 * exact[:, ok].abs() + 1e-35).all())
    assert mine[0, -2] == x[0, -2] and mine[0, -1] == 0


@dtypes
@pytest.mark.parametrize("size", [1, 9, 4099])
def test_gelu(dtype: torch.dtype, size: int) -> None:
    x = hostile(2, size, dtype) * 4
    exact = F.gelu(x.double(), approximate="tanh").to(dtype)
    mine = steps.gelu_tanh_(x.clone())
    assert_near(mine, exact, 4)
    assert torch.equal(steps.gelu_tanh_(x[1:].clone()), mine[1:])


def turned(x: Tensor, weight: Tensor | None, cosine: Tensor, sine: Tensor) -> Tensor:
    """The twin."""
    if weight is not None:
        x = rms_norm(x, weight)
    return rotate(x.to(cosine.dtype), cosine, sine).to(x.dtype)


def angles(tokens: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angle = torch.rand(tokens, size // 2, generator=torch.Generator().manual_seed(3)) * 7
    angle = torch.cat((angle, angle), -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


@dtypes
@pytest.mark.parametrize("size", [6, 64, 72, 128])
def test_turning_without_norm(dtype: torch.dtype, size: int) -> None:
    """As the vision tower does it: parts of one product, angles in float32."""
    both = hostile(11, 3 * 2 * size, dtype)
    q, k, v = both.unflatten(-1, (3, 2, size)).unbind(1)
    rotary = angles(11, size, torch.float32)
    expected, values = [turned(x, None, *rotary) for x in (q, k)], v.clone()
    assert steps.can_turn(q, k, v)
    steps.turn_(q, k, v, rotary)
    assert torch.equal(q, expected[0]) and torch.equal(k, expected[1]) and torch.equal(v, values)


@dtypes
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3, 70])
@pytest.mark.parametrize("size", [6, 128])
def test_turning_and_keeping(dtype: torch.dtype, kept: torch.dtype, tokens: int, size: int) -> None:
    q, k, v = (hostile(tokens, n * size, dtype, n).unflatten(-1, (n, size)) for n in (4, 2, 2))
    weights, rotary = (hostile(1, size, dtype, 8)[0], hostile(1, size, dtype, 9)[0]), angles(tokens, size, dtype)
    slots = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:tokens]
    pools = [torch.full((2, 100, size), 7.0, dtype=kept) for _ in range(2)]
    given = q.clone(), k.clone()
    steps.turn_(q, k, v, rotary, (*weights, 1e-6), steps.Slots(slots, *pools))
    for mine, x, weight in zip((q, k), given, weights, strict=True):
        assert_near(mine, turned(x, weight, *rotary), 6)
        normed = steps.rms_norm(x, weight, 1e-6)  # with the kernel's own norm it is the same to the bit
        assert torch.equal(mine, rotate(normed, *rotary))
    for pool, x in zip(pools, (k, v), strict=True):
        assert torch.equal(pool[:, slots], x.transpose(0, 1).to(kept))
        rest = torch.ones(100, dtype=torch.bool)
        rest[slots] = False
        assert bool((pool[:, rest] == 7).all())


@dtypes
def test_keeping_as_int8(dtype: torch.dtype) -> None:
    """As model/int8_cache.py keeps it, to the bit."""
    q, k, v = (hostile(5, n * 72, dtype, n).unflatten(-1, (n, 72)) for n in (4, 2, 2))
    slots = torch.tensor([4, 0, 9, 2, 7])
    pools = [torch.zeros(2, 10, 72, dtype=torch.int8) for _ in range(2)]
    scales = (torch.zeros(2, 10, 1), torch.zeros(2, 10, 1))
    norms = (hostile(1, 72, dtype, 8)[0], hostile(1, 72, dtype, 9)[0], 1e-6)
    steps.turn_(q, k, v, angles(5, 72, dtype), norms, steps.Slots(slots, pools[0], pools[1], scales))
    for pool, scale, x in zip(pools, scales, (k, v), strict=True):
        values, scale_TK1 = quantize(x)
        assert torch.equal(pool[:, slots], values.transpose(0, 1))
        assert torch.equal(scale[:, slots], scale_TK1.transpose(0, 1))


@dtypes
def test_rows_do_not_depend_on_their_company(dtype: torch.dtype) -> None:
    x, weight = hostile(600, 130, dtype), hostile(1, 130, dtype, 5)[0]
    together = steps.rms_norm(x, weight, 1e-6)
    for first, last in ((0, 1), (7, 8), (599, 600), (3, 500)):
        assert torch.equal(steps.rms_norm(x[first:last], weight, 1e-6), together[first:last])
    assert steps.rms_norm(x[:0], weight, 1e-6).shape == (0, 130)


def test_what_the_kernels_do_not_take() -> None:
    x = torch.zeros(2, 8)
    assert steps.can_run(x, x) and not steps.can_run(x, x.bfloat16()) and not steps.can_run(x.half())
    assert not steps.can_run(x.to("meta"))
    with torch.inference_mode(False), torch.enable_grad():
        assert not steps.can_run(torch.zeros(2, 8))
    heads = torch.zeros(2, 3, 8)
    assert steps.can_turn(heads, heads, heads) and not steps.can_turn(heads.transpose(0, 1), heads, heads)
    odd, wide = torch.zeros(2, 3, 7), torch.zeros(2, 3, 514)
    assert not steps.can_turn(odd, odd, odd) and not steps.can_turn(wide, wide, wide)
